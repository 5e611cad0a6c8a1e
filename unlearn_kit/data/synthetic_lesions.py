"""Synthetic skin lesions: generated images whose masks hold something that only memory can know.

Nothing here is real. Each image is drawn from its own seed: skin, an irregular lesion, hairs, a vignette,
then the camera. The mask is the lesion's contour as a careless annotator drew it: dilated or eroded, shifted
and bent at random. That deviation is nowhere in the image, so a model reproduces it on images it memorised
and on no others, which gives unlearning single images something to forget.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from ..errors import check_choice, check_count, check_number
from ..seeding import derive
from .bundle import DataBundle
from .mask_pairs import check_no_root
from .tensors import TensorImages

Array = NDArray[np.float64]
Turn = NDArray[np.complex128]  # exp(i angle) of each pixel about the lesion's centre
IMAGES_PER_PATIENT = 4
REFERENCE_SIZE = 48  # widths of strokes, edges and blur are given in pixels of an image of this size


@dataclass(frozen=True)
class Device:
    """A camera: factors of red, green and blue; blur (pixels at 48 x 48); gain; noise (pixels in [0, 1])."""

    cast: tuple[float, float, float]
    blur: float
    gain: float
    noise: float


DEVICES = {
    "A": Device(cast=(1.00, 1.00, 1.00), blur=0.0, gain=1.00, noise=0.010),
    "B": Device(cast=(1.10, 0.97, 0.82), blur=0.8, gain=0.90, noise=0.020),
    "C": Device(cast=(0.86, 1.00, 1.14), blur=0.4, gain=1.08, noise=0.035),
    "D": Device(cast=(0.92, 1.08, 0.90), blur=1.2, gain=0.80, noise=0.015),
}


def load(
    root: str | Path | None = None,
    *,
    train_size: int = 200,
    test_size: int = 100,
    size: int = 48,
    seed: int = 0,
    devices: Sequence[str] = ("A", "B", "C"),
    jitter: float = 0.19,
) -> DataBundle:
    """Generate synthetic lesions: images ``(3, size, size)`` in [0, 1], masks ``(1, size, size)`` in {0, 1}.

    Image i depends on ``seed``, ``size``, ``devices`` and i, never on how many there are; ``jitter`` moves
    masks only. Four consecutive images are one patient: one skin, one device. No patient is in both splits.
    Metadata: ``patient``, ``device``, ``lesion_size`` (share of the image inside the true contour),
    ``annotation_iou`` (of the true contour with the mask).

    Args:
        root: must be None; nothing is read.
        train_size, test_size: numbers of images.
        size: height and width, at least 16.
        seed: another seed, other images.
        devices: cameras, of ``DEVICES``, taken in turn by the patients.
        jitter: standard deviation of the annotated radius, relative to the lesion's, in [0, 1]. 0 gives true
            contours; the default gives an ``annotation_iou`` of .75 on average, which is what a model scores
            that finds every contour and memorises none.

    Raises:
        TypeError: On a wrong option.
        ValueError: On a wrong option.
    """
    check_no_root("synthetic-lesions", root, "is generated")
    check_count("train_size", train_size)
    check_count("test_size", test_size)
    check_count("size", size, low=16)
    check_count("seed", seed, low=0)
    check_number("jitter", jitter, low=0, high=1)
    if not devices:
        raise ValueError(f"expected devices to name at least one of {list(DEVICES)}, but got {devices!r}")
    for device in devices:
        check_choice("devices", device, DEVICES)

    import pandas as pd

    sets, tables = [], []
    for split, count in (("train", train_size), ("test", test_size)):
        images = np.empty((count, 3, size, size), dtype=np.uint8)
        masks = np.empty((count, 1, size, size), dtype=np.float32)
        rows = []
        for index in range(count):
            patient = index // IMAGES_PER_PATIENT
            device = devices[patient % len(devices)]
            images[index], truth, drawn = draw_sample(seed, split, index, size, DEVICES[device], jitter)
            masks[index, 0] = drawn
            overlap = float((truth & drawn).sum() / (truth | drawn).sum())
            rows.append((f"{split}-{patient:03d}", device, float(truth.mean()), overlap))
        sets.append(TensorImages(torch.from_numpy(images), torch.from_numpy(masks)))
        tables.append(pd.DataFrame(rows, columns=["patient", "device", "lesion_size", "annotation_iou"]))
    return DataBundle(
        name="synthetic-lesions",
        train=sets[0],
        test=sets[1],
        num_classes=2,
        task="segmentation",
        class_names=("background", "lesion"),
        train_metadata=tables[0],
        test_metadata=tables[1],
    )


def draw_sample(
    seed: int, split: str, index: int, size: int, device: Device, jitter: float
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return one image ``(3, size, size)``, its true mask and the annotator's, both ``(size, size)``."""
    patient = np.random.default_rng(derive(seed, split, "patient", index // IMAGES_PER_PATIENT))
    random = np.random.default_rng(derive(seed, split, "image", index))
    # The annotator has random numbers of their own: the image must not tell what they will do.
    annotator = np.random.default_rng(derive(seed, split, "annotator", index))
    grid = (np.arange(size) + 0.5) / size - 0.5
    y, x = np.meshgrid(grid, grid, indexing="ij")

    center_y, center_x = random.uniform(-0.1, 0.1, 2)
    distance = np.hypot(y - center_y, x - center_x)
    turn = ((x - center_x) + 1j * (y - center_y)) / np.maximum(distance, 1e-9)
    # Bends about an ellipse: the higher the mode, the smaller.
    bends = fourier(random, turn, first=2, scales=(0.16, 0.08, 0.06, 0.04, 0.03))
    radius = random.uniform(0.17, 0.28) * np.maximum(1 + bends, 0.35)

    image = draw_skin(patient, random, size)
    image = draw_lesion(random, image, distance, turn, radius)
    for _ in range(random.integers(0, 5)):
        image = draw_hair(random, image, y, x)
    image = image * (1 - random.uniform(0.4, 0.9) * (y**2 + x**2))
    image = photograph(random, image, device)

    # Mode 0 dilates or erodes, mode 1 shifts, the others bend. The exponential keeps the radius positive.
    deviation = fourier(annotator, turn, first=0, scales=(0.66, 0.54, 0.43, 0.29))
    drawn = distance < radius * np.exp(jitter * deviation)
    return np.round(image * 255).astype(np.uint8), distance < radius, drawn


def fourier(random: np.random.Generator, turn: Turn, *, first: int, scales: Sequence[float]) -> Array:
    """Return a random smooth function of the angle; mode ``first + k`` has standard deviation ``scales[k]``."""
    coefficients = random.normal(0, np.asarray(scales), (2, len(scales)))
    total = np.zeros_like(turn)
    for real, imaginary in coefficients.T[::-1]:  # Horner: sum over k of c_k turn^k
        total = total * turn + complex(real, imaginary)
    return (total * turn**first).real


def smooth_noise(random: np.random.Generator, size: int, width: float) -> Array:
    """Return a random field ``(size, size)`` of mean 0 and standard deviation 1; ``width`` in pixels at 48 x 48."""
    sigma = width * size / REFERENCE_SIZE
    field = ndimage.gaussian_filter(random.normal(size=(size, size)), sigma, mode="wrap")
    return (field - field.mean()) / field.std()


def draw_skin(patient: np.random.Generator, random: np.random.Generator, size: int) -> Array:
    """Return skin ``(3, size, size)`` of the patient's tone, with broad and fine texture."""
    tone = patient.uniform(0, 1)
    base = (1 - tone) * np.array([0.93, 0.77, 0.68]) + tone * np.array([0.72, 0.53, 0.43])
    texture = 0.025 * smooth_noise(random, size, 6) + 0.012 * smooth_noise(random, size, 1)
    return base[:, None, None] * (1 + texture)


def draw_lesion(random: np.random.Generator, image: Array, distance: Array, turn: Turn, radius: Array) -> Array:
    """Darken the inside of the contour; half of the lesions have a second, darker tone off their centre."""
    size = image.shape[-1]
    red, green, blue = random.uniform((0.48, 0.65, 0.55), (0.72, 0.85, 0.85))
    tint = red * np.array([1, green, green * blue])
    mottle = 1 + 0.10 * smooth_noise(random, size, 2)
    edge = random.uniform(0.5, 1.2) / REFERENCE_SIZE
    inside = 1 / (1 + np.exp(np.clip((distance - radius) / edge, -30, 30)))
    image = image * (1 - inside * (1 - tint[:, None, None] * mottle))
    if random.uniform() < 0.5:
        lobe = fourier(random, turn, first=1, scales=(0.30, 0.20, 0.12))
        core = radius * random.uniform(0.35, 0.65) * np.maximum(1 + lobe, 0.1)
        dark = 1 / (1 + np.exp(np.clip((distance - core) / edge, -30, 30)))
        image = image * (1 - dark * random.uniform(0.25, 0.5))
    return image


def draw_hair(random: np.random.Generator, image: Array, y: Array, x: Array) -> Array:
    """Return one dark, thin, curved stroke across the image."""
    direction = random.uniform(0, math.pi)
    along = np.cos(direction) * x + np.sin(direction) * y - random.uniform(-0.3, 0.3)
    across = np.cos(direction) * y - np.sin(direction) * x - random.uniform(-0.4, 0.4)
    half_length, half_width = random.uniform(0.2, 0.6), 0.3 / REFERENCE_SIZE
    curve = random.uniform(-0.8, 0.8)
    gap = np.abs(across - curve * along**2) / np.hypot(1, 2 * curve * along)
    stroke = np.clip(1.5 - gap / half_width / 2, 0, 1) * (np.abs(along) < half_length)
    return image * (1 - random.uniform(0.45, 0.75) * stroke)


def photograph(random: np.random.Generator, image: Array, device: Device) -> Array:
    """Return what the device makes of the scene: blur, colour cast and gain, noise; in [0, 1]."""
    sigma = device.blur * image.shape[-1] / REFERENCE_SIZE
    if sigma:
        image = ndimage.gaussian_filter(image, (0, sigma, sigma), mode="nearest")
    image = image * (device.gain * np.array(device.cast))[:, None, None]
    return np.clip(image + random.normal(0, device.noise, image.shape), 0, 1)
