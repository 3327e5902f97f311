"""The scale a network works in, against pictures as they are saved: RGB in [0, 1]."""

from typing import NamedTuple

import numpy as np


class Pixels(NamedTuple):
    """x = gain * picture - mean, the channels reversed first if `bgr`.

    mean: in the network's own scale and order of channels.
    size: pixels a side that a classifier reads from the middle of a picture, None for all.
    """

    gain: float
    mean: tuple = (0.0, 0.0, 0.0)
    bgr: bool = False
    size: int | None = None


def from_pictures(pixels, images):
    """Pictures `[N, H, W, 3]` in [0, 1], NumPy or JAX -> what the network reads."""
    if pixels.size is not None:
        top, left = ((side - pixels.size) // 2 for side in images.shape[1:3])
        images = images[:, top : top + pixels.size, left : left + pixels.size]
    images = images[..., ::-1] if pixels.bgr else images
    return pixels.gain * images - _mean(pixels, images)


def to_pictures(pixels, x):
    """What a generator draws `[N, H, W, 3]`, unclipped -> pictures in [0, 1], still unclipped."""
    images = (x + _mean(pixels, x)) / pixels.gain
    return images[..., ::-1] if pixels.bgr else images


def _mean(pixels, like):
    """The mean `[1, 1, 1, 3]`, in the precision of what it is added to."""
    return np.asarray(pixels.mean, like.dtype)[None, None, None]
