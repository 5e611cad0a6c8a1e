from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def vit() -> Any:
    """A small transformer of Hugging Face with three classes and fresh weights, for images of 16 pixels."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=16,
        patch_size=8,
        num_labels=3,
    )
    return transformers.ViTForImageClassification(config)
