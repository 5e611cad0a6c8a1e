"""Picture strips: forgotten images, their masks, and what each model makes of them."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from unlearn_kit.plots import PALETTE

from ..suites.store import Store
from .rows import ReportRun
from .tasks import ReportTask

SIDE = 128  # most pixels of a picture's side; more would swell the page
GAP = 4
INKS = ((0.93, 0.93, 0.93), PALETTE[1], PALETTE[0])  # agrees, too much, missing


@dataclass(frozen=True)
class Strip:
    """One line of pictures as a PNG in a data address, what it shows, and how large that is shown."""

    label: str
    source: str
    width: int
    height: int


def strips(task: ReportTask, store: Store) -> list[Strip]:
    """Return forgotten images of one training; where there are masks these, and what each row's first run predicts."""
    reference = task.row("reference")
    first = None if reference is None or not reference.ok else reference.ok[0]
    base = {} if first is None else _tensors(store, first)
    if first is None or "images" not in base:
        return []
    found = [_strip("image", _colours(base["images"]))]
    if not {"masks", "predicted"} <= set(base):
        return found
    masks = base["masks"]
    found.append(_strip("true mask", _labels(masks)))
    for row in task.rows:
        run = next((run for run in row.ok if run.seeds[0] == first.seeds[0]), None)
        predicted = None if run is None else _tensors(store, run).get("predicted")
        if predicted is not None and predicted.shape == masks.shape:
            found.append(_strip(row.label, _compared(predicted, masks)))
    return found


def _tensors(store: Store, run: ReportRun) -> dict[str, Any]:
    if not run.record.tensors:
        return {}
    return {name: tensor.numpy() for name, tensor in store.tensors(run.record.key).items()}


def _colours(images: Any) -> Any:
    """Turn bytes ``(N, C, H, W)`` into colours ``(N, H, W, 3)``."""
    found = np.asarray(images).transpose(0, 2, 3, 1)
    return found if found.shape[-1] == 3 else np.repeat(found[..., :1], 3, axis=-1)


def _labels(masks: Any) -> Any:
    """Turn class indices ``(N, H, W)`` into colours: black, white, then the palette."""
    table = np.array([(0, 0, 0), (238, 238, 238), *(_rgb(color) for color in PALETTE[1:])], dtype=np.uint8)
    index = masks.astype(np.int64)
    return table[np.where(index > 0, (index - 1) % (len(table) - 1) + 1, 0)]


def _compared(predicted: Any, masks: Any) -> Any:
    """Colour what agrees, what is too much and what is missing; with more than two classes, the predicted ones."""
    if max(predicted.max(), masks.max()) > 1:
        return _labels(predicted)
    agrees, extra, missing = (_rgb(ink) for ink in INKS)
    found = np.zeros((*masks.shape, 3), dtype=np.uint8)
    found[(predicted == 1) & (masks == 1)] = agrees
    found[(predicted == 1) & (masks == 0)] = extra
    found[(predicted == 0) & (masks == 1)] = missing
    return found


def _rgb(color: Any) -> tuple[int, int, int]:
    if isinstance(color, str):
        return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
    red, green, blue = (round(255 * share) for share in color)
    return red, green, blue


def _strip(label: str, pictures: Any) -> Strip:
    from PIL import Image

    small = []
    for picture in pictures:
        image = Image.fromarray(picture)
        image.thumbnail((SIDE, SIDE))
        small.append(image)
    width, height = small[0].size
    whole = Image.new("RGBA", (len(small) * (width + GAP) - GAP, height), (0, 0, 0, 0))
    for place, image in enumerate(small):
        whole.paste(image, (place * (width + GAP), 0))
    target = io.BytesIO()
    whole.save(target, format="PNG", optimize=True)
    source = "data:image/png;base64," + base64.b64encode(target.getvalue()).decode("ascii")
    # Small pictures are shown in whole multiples of their pixels.
    zoom = max(1, SIDE // max(width, height))
    return Strip(label, source, zoom * whole.width, zoom * whole.height)
