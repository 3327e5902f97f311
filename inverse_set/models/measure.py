"""What is natural to a model: measured on natural inputs, kept in a file beside it."""

import dataclasses
import hashlib
import io
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from inverse_set import disk
from inverse_set.errors import UserError
from inverse_set.models import bind
from inverse_set.natural_units import mean_square_distance

PERCENTILES = (0.1, 1.0, 5.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9)
EXAMPLES = 1000  # natural codes that are kept
ROOM = 2**27  # numbers of activations that are in memory at a time
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def measure(model, images=None, codes=None, file=None):
    """The model with percentiles, the range and the spread of codes, and codes to start from.

    images: natural inputs `[N, ...]` of the shape that the generator draws, N >= 2: floats in its
        range, pictures also as bytes; or a folder of pictures, which are cropped and scaled.
    codes: natural codes `[N, D]`, such as draws of a GAN's prior; without images, their G(c) are
        the natural inputs.  A model that `inverts` takes E of the images.
    file: where the measurement is kept; if it is there it is read, and nothing is measured.
    Returns a `Model`.  Raises UserError for inputs of another shape, too few of them, numbers that
    are not finite, or a file of another model.

        model = measure(model, photographs, file="measured.npz")
    """
    path = None if file is None else Path(file)
    if path is not None and path.exists():
        return _with(model, _read(path, model))
    if images is None and codes is None:
        raise UserError("there is nothing to measure", "give natural images, or natural codes")
    if codes is not None:
        codes = _checked(np.asarray(codes, np.float32), (model.code_size,), "codes")
    inputs = _drawn(model, codes) if images is None else _inputs(model, images)
    features = bind.encodings(model, inputs)
    if codes is None and model.inverts:
        codes = features
    found = {"feature_square": np.float64(mean_square_distance(jnp.asarray(features)))}
    found["quantiles"] = np.asarray(PERCENTILES)
    for layer, values in _activations(model, inputs):
        found[f"natural/{layer}"] = np.percentile(values, PERCENTILES, axis=0).astype(np.float32)
    if codes is not None:
        found["lower"], found["upper"] = codes.min(0), codes.max(0)
        found["code_square"] = np.float64(mean_square_distance(jnp.asarray(codes)))
        found["codes"] = codes[:EXAMPLES]
    if not all(np.isfinite(value).all() for value in found.values()):
        raise UserError(
            f"{model.name} returns NaN or infinity for some of the inputs", "look at its inputs"
        )
    if path is not None:
        _write(path, model, found)
    return _with(model, found)


def _with(model, found):
    """The model with what was measured."""
    prior = model.prior._replace(feature_square=float(found["feature_square"]))
    if "codes" in found:
        keys = ("lower", "upper", "codes")
        prior = prior._replace(**{key: found[key] for key in keys})
        prior = prior._replace(code_square=float(found["code_square"]))
    natural = {
        key.removeprefix("natural/"): value
        for key, value in found.items()
        if key.startswith("natural/")
    }
    quantiles = found["quantiles"]
    return dataclasses.replace(model, prior=prior, quantiles=quantiles, natural=natural)


def _inputs(model, images):
    """Natural inputs as the generator would draw them, float32 `[N, ...]`."""
    if isinstance(images, str | Path):
        images = _folder(model, Path(images))
    images = np.asarray(images)
    if images.dtype == np.uint8 and model.pictures:
        images = images / np.float32(255)
    return _checked(images.astype(np.float32), model.image.shape, "images")


def _checked(array, shape, name):
    if array.shape[1:] != tuple(shape) or len(array) < 2:
        raise UserError(
            f"expected {name} of shape (N, {', '.join(map(str, shape))}), N >= 2, "
            f"got {array.shape}",
            "give at least two, in the shape that the model works in",
        )
    if not np.isfinite(array).all():
        raise UserError(f"some {name} are NaN or infinite", "leave those out")
    return array


def _folder(model, folder):
    """The pictures of a folder and of those in it, cropped to the model's shape and scaled."""
    if not model.pictures:
        raise UserError(f"{model.name} reads no pictures", "give an array of its inputs")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if len(paths) < 2:
        raise UserError(f"{folder} has no two pictures", f"they end in {', '.join(SUFFIXES)}")
    height, width, channels = model.image.shape
    found = np.empty((len(paths), height, width, channels), np.uint8)
    for row, path in zip(found, paths, strict=True):
        try:
            with Image.open(path) as picture:
                picture = picture.convert("RGB" if channels == 3 else "L")
                scale = max(width / picture.width, height / picture.height)
                size = max(width, round(picture.width * scale)), round(picture.height * scale)
                picture = picture.resize((size[0], max(height, size[1])), Image.Resampling.BICUBIC)
                left, top = (picture.width - width) // 2, (picture.height - height) // 2
                picture = picture.crop((left, top, left + width, top + height))
                row[...] = np.asarray(picture).reshape(height, width, channels)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(
                f"{path} is no picture: {' '.join(str(error).split())}", "take it out of the folder"
            ) from error
    return found


def _drawn(model, codes):
    """The inputs that the generator makes of codes, as they are saved."""
    run = jax.jit(lambda generate, codes: model.finisher(generate(codes)))
    parts = [run(model.generate, codes[i : i + 50]) for i in range(0, len(codes), 50)]
    return np.concatenate(parts)


def _activations(model, inputs):
    """Yields (layer, activations `[N, ...]`) of every layer that fits into memory."""
    room, group, groups = ROOM, [], []
    for layer, shape in model.shapes.items():
        size = len(inputs) * math.prod(shape)
        if size > ROOM:
            continue
        if size > room:
            groups.append(group)
            room, group = ROOM, []
        group.append(layer)
        room -= size
    for names in filter(None, [*groups, group]):
        found = bind.layers_of(model, inputs, tuple(names))
        yield from ((layer, found[layer]) for layer in names)


def _identity(model):
    """What the file of a measurement is held against."""
    text = json.dumps([model.code_size, list(model.image.shape), model.digests], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _write(path, model, found):
    data = io.BytesIO()
    np.savez(data, identity=np.asarray(_identity(model)), **found)
    with disk.writing(path, UserError, "another file"):
        disk.write_atomically(path, data.getvalue())


def _read(path, model):
    """What `_write` wrote; UserError if it is another file, or of another model."""
    remedy = "measure again into another file"
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            found = {key: file[key] for key in file.files}
        identity = str(found.pop("identity"))
    except Exception as error:  # numpy raises almost anything over other files
        said = " ".join(str(error).split())
        raise UserError(f"{path} is no measurement of a model: {said}", remedy) from error
    if identity != _identity(model):
        raise UserError(f"{path} was measured on another model than this {model.name}", remedy)
    return found
