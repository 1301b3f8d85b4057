"""Photographs to train on: those that calibrate and others, whole and in parts."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.vision import ASSETS, FEED, PICTURES, SEED, Examples
from benchmarks.vision_engines import Floats
from onhand.core.network import ArrayInfo
from onhand.device.networks.pictures import PICTURE_SUFFIXES, feed_picture, read_picture

__all__ = ["random_part", "training_arrays"]

PARTS = 5  # of each photograph, beside its middle


def training_arrays(chosen: list[int], calibration: Examples) -> Floats:
    """Return photographs and parts of them, (N, 3, 224, 224) float32.

    Args:
        chosen: rows of the table of photographs, those that calibrate.
        calibration: their middles.
    """
    files = [line.split(",")[0] for line in (PICTURES / "labels.csv").read_text().splitlines()[1:]]
    paths = [PICTURES / "images256" / files[row] for row in chosen]
    # Single photographs that come with other networks; none of them judges.
    others = [
        path
        for folder in ("fastestdet", "vision-imagenet-tflite")
        for path in sorted((ASSETS / folder).glob("*.*"))
        if path.suffix in PICTURE_SUFFIXES
    ]
    info = ArrayInfo(name="input", dtype="float32", shape=(None, 3, 224, 224))
    stretched = replace(FEED, resize="stretch", short_side=0)
    rng = np.random.default_rng(SEED)
    made = [calibration.arrays]
    for path in [*paths, *others]:
        pixels = read_picture(path)
        if path in others:
            made.append(feed_picture(pixels, FEED, info))
        for _ in range(PARTS):
            made.append(feed_picture(random_part(pixels, rng), stretched, info))
    return np.concatenate(made).astype(np.float32)


def random_part(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Cut a part out: 35 to 100 % of the area, sides 3:4 to 4:3, as ImageNet is trained on."""
    height, width = pixels.shape[:2]
    area = height * width * rng.uniform(0.35, 1.0)
    ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    tall = min(height, round(float(np.sqrt(area / ratio))))
    wide = min(width, round(float(np.sqrt(area * ratio))))
    top, left = (int(rng.integers(0, most + 1)) for most in (height - tall, width - wide))
    return pixels[top : top + tall, left : left + wide]
