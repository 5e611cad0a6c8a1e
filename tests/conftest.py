"""What tests of every room share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch


@contextmanager
def _unusual() -> Iterator[None]:
    dtype = torch.get_default_dtype()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            torch.set_default_device(None)


@pytest.fixture
def unusual_settings() -> AbstractContextManager[None]:
    """Every global setting of torch that could change a result: no gradients, float64, another device, autocast."""
    return _unusual()
