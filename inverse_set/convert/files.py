"""What the readers of weight files share: which files they open, and what may leave them."""

import contextlib
import os
import re
import stat
from typing import Any, NamedTuple

import numpy as np

from inverse_set.errors import WeightError

POOL, NORM = "pooling", "normalisation"  # kinds of layers without weights
SLACK = 64 << 20
_FLOATS = ("float16", "bfloat16", "float32", "float64")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Source(NamedTuple):
    """What a released file holds.

    layers: a mapping {name: arrays in Caffe's layout}.  mean: float32 `[3]`, BGR, or None.
    order: POOL or NORM of each layer of that kind, in the order they compute; () where the file
        does not tell.
    """

    layers: Any
    mean: np.ndarray | None = None
    order: tuple = ()


def regular_size(path):
    """Bytes of the regular file at `path`, or where its links lead; nothing else is ever opened."""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        wrong = getattr(error, "strerror", None) or str(error)
        raise WeightError(path, f"cannot be read: {wrong}", remedy="check the path") from error
    if not stat.S_ISREG(found.st_mode):
        raise WeightError(path, "not a regular file", remedy="give the path of a weight file")
    return found.st_size


def most_bytes(size):
    """Most bytes that the arrays of a file of `size` bytes take: half precision doubles."""
    return 2 * size + SLACK


@contextlib.contextmanager
def reading(path):
    """Turns whatever a hostile file provokes into a WeightError that names it."""
    try:
        yield
    except (WeightError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except OSError as error:
        wrong = f"cannot be read: {error.strerror or one_line(error)}"
        raise WeightError(path, wrong, remedy="check its permissions and the disk") from error
    except BaseException as error:  # a panic in safetensors' Rust is no Exception
        raise WeightError(path, f"damaged: {one_line(error)}") from error


def one_line(text):
    """What an error says, on one line that a terminal can show; never empty, 200 characters."""
    shown = " ".join(str(text).split())[:200]
    return "".join(c if c.isprintable() else "?" for c in shown) or type(text).__name__


def float32(path, array, layer):
    """The same numbers in contiguous float32; WeightError if they are not finite floats."""
    if array.dtype.name not in _FLOATS:
        raise WeightError(path, f"expected floats of 16 to 64 bits, has {array.dtype}", layer)
    if not array.size:
        raise WeightError(path, f"an array is empty, its shape {array.shape}", layer)
    with np.errstate(over="ignore", invalid="ignore"):
        array = np.ascontiguousarray(array, np.float32)
        if not np.isfinite(array.min()) or not np.isfinite(array.max()):
            raise WeightError(path, "holds numbers that are not finite in float32", layer)
    return array


def checked_name(path, layer):
    """The name of a layer; WeightError unless it is one that a message can show."""
    if not _NAME.fullmatch(layer):
        raise WeightError(path, f"a layer has the name {one_line(repr(layer))}")
    return layer


def pairs(path, parts):
    """`{layer: (kernel, bias)}` in float32 from `{(layer, "kernel" or "bias"): array}`.

    Empties `parts`, so that an array and its copy do not live longer than needed.
    """
    layers = {}
    for layer in dict.fromkeys(layer for layer, _ in parts):
        checked_name(path, layer)
        found = []
        for part, ranks in (("kernel", (2, 4)), ("bias", (1,))):
            if (layer, part) not in parts:
                raise WeightError(path, f"there is no {part}", layer)
            array = float32(path, parts.pop((layer, part)), layer)
            if array.ndim not in ranks:
                expected = " or ".join(map(str, ranks))
                wrong = f"expected a {part} of rank {expected}, has shape {array.shape}"
                raise WeightError(path, wrong, layer)
            found.append(array)
        layers[layer] = tuple(found)
    if not layers:
        raise WeightError(path, "holds no weights")
    return layers
