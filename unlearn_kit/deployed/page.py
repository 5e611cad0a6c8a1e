"""A revision on one page, for people: what was asked, with pictures; what was done; what was measured."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..arguments import checked
from ..data.tensors import load_tensors, subset
from ..evidence import Receipt
from ..evidence.words import CHANGES, LIMIT, SCORES, WHO, change_cells, figure, finding_rows, score, told
from ..metrics.predict import predict
from ..outputs import decisions, predicted_labels
from ..tasks import UnlearnTask

SHOWN = 12  # pictures of each kind
SIDE = 96  # their height and width on the page, in pixels
TEMPLATE = Path(__file__).parent / "page.html"


def page(
    receipt: Receipt,
    task: UnlearnTask,
    before: nn.Module,
    after: nn.Module,
    *,
    class_names: Sequence[str] | None = None,
) -> str:
    """Return the page of a revision as HTML that needs nothing else: no script, no network.

    Args:
        receipt: The receipt, with what was read of the deployed model.
        task: What was to be forgotten.
        before: The model as it served.
        after: The revised model.
        class_names: A name for each class, or finding, which stand under the pictures; None for their numbers.
    """
    pictures = [
        ("What was to be forgotten", _pictures(task.forget, task.kind, class_names, before, after)),
        ("What was to be kept, some of it", _pictures(task.retain, task.kind, class_names, before, after)),
    ]
    values = receipt.values
    metrics = values["metrics"]
    return render(
        title=f"Forget {task.rule}",
        receipt=values,
        counts=counts(task),
        pictures=pictures,
        scores=[(words, [score(metrics[who], name) for who in WHO]) for name, words in SCORES.items()],
        verdicts=[one | {"told": figure(one["figure"]), "was": figure(one["before"])} for one in values["verdicts"]],
        headings=CHANGES,
        figures=[(name, told(value)) for name, value in values["figures"].items()],
        changes=[
            (title, [change_cells(row) for row in values[key]])
            for title, key in (("class", "classes"), ("group", "groups"))
            if values[key]
        ],
        findings=finding_rows(metrics, class_names),
    )


@checked
def preview(
    task: UnlearnTask, read: list[str], warnings: list[str], *, class_names: Sequence[str] | None = None
) -> str:
    """Return the page of a revision that was not made: what would be forgotten."""
    pictures = [
        ("What would be forgotten", _pictures(task.forget, task.kind, class_names)),
        ("What would be kept, some of it", _pictures(task.retain, task.kind, class_names)),
    ]
    told = {"deployed": {"read": read, "warnings": warnings}}
    return render(title=f"Would forget {task.rule}", receipt=told, counts=counts(task), pictures=pictures, scores=[])


def counts(task: UnlearnTask) -> list[tuple[str, int, int]]:
    """Return how many samples of training, validation and test data are on either side of the request.

    And of groups such as patients, where they are known, how many the request touches and how many it does not.
    """
    division = task.division
    groups = (
        []
        if division is None
        else [(f"{division.plural}, of training data", division.touched, division.groups - division.touched)]
    )
    return [
        ("training data", len(task.forget), len(task.retain)),
        *groups,
        ("validation data, to choose by", len(task.forget_validation), len(task.retain_validation)),
        ("test data, to judge by", len(task.forget_test), len(task.retain_test)),
    ]


def render(**values: Any) -> str:
    """Return the template with these values in it, escaped."""
    from jinja2 import Environment

    source = TEMPLATE.read_text(encoding="utf-8")
    return (
        Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        .from_string(source)
        .render(limit=LIMIT, **values)
    )


def _pictures(data: Any, kind: str, class_names: Sequence[str] | None, *models: nn.Module) -> list[dict[str, Any]]:
    """Return some samples: a picture each, and what they are and what the models say of them, as masks or in words."""
    count = min(SHOWN, len(data))
    if not count:
        return []
    some = subset(data, np.linspace(0, len(data) - 1, count).round().astype(int))
    images, targets = load_tensors(some)
    said = [predicted_labels(decisions(predict(model, some)[0], targets)) for model in models]
    rows = []
    for i in range(count):
        labels = [targets[i], *(label[i] for label in said)]
        words = "" if kind == "segmentation" else " → ".join(_name(label, class_names) for label in labels)
        masks = [_png(_flat(_grey(label, images))) for label in labels] if kind == "segmentation" else []
        rows.append({"image": _png(_flat(images[i])), "masks": masks, "text": words})
    return rows


def _name(label: Tensor, class_names: Sequence[str] | None) -> str:
    """Return a class, or all findings of a row that are present, by name or number."""
    present = (label == 1).nonzero().flatten().tolist() if label.dim() else [int(label)]
    return ", ".join(str(k) if class_names is None else class_names[k] for k in present) or "none"


def _flat(image: Tensor) -> Tensor:
    """Return an image ``(C, H, W)``; of a volume its middle slice."""
    while image.dim() > 3:
        image = image[:, image.shape[1] // 2]
    return image[:3] if image.shape[0] >= 3 else image[:1]


def _grey(mask: Tensor, images: Tensor) -> Tensor:
    """Return a mask of labels as a grey image ``(1, H, W)``, the background black; of a volume ``(1, D, H, W)``."""
    known = mask.float().clamp(min=0).reshape(1, *images.shape[2:])
    return known / known.max().clamp(min=1)


def _png(image: Tensor) -> str:
    """Return an image ``(C, H, W)`` in [0, 1] as the text of a PNG, scaled to its own range where it leaves that."""
    from PIL import Image

    pixels = image.float()
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        pixels = (pixels - low) / max(high - low, 1e-12)
    array = (pixels * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    picture = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
