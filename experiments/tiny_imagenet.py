"""Reads Tiny ImageNet: a folder of parquet shards, or the original tiny-imagenet-200 folder."""

import concurrent.futures
import functools
import io
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

FORMATS = ("WEBP", "JPEG", "PNG")
SIDE = 64
STARTS = slice(5)  # training pictures of each class whose codes ship to start from


def class_names(folder):
    """[(WordNet id, English names)] in label order."""
    folder = pathlib.Path(folder)
    if (folder / "labels.txt").exists():
        lines = (folder / "labels.txt").read_text().splitlines()
        return [tuple(line.split("\t", 1)) for line in lines if line]
    words = dict(line.split("\t", 1) for line in (folder / "words.txt").read_text().splitlines())
    return [(wnid, words[wnid]) for wnid in sorted((folder / "wnids.txt").read_text().split())]


def load(folder, split, classes, each=None):
    """uint8 images `[N, 64, 64, 3]` and labels `[N]`: each picture's place in `classes`.

    split: "train" or "valid".  classes: list of label numbers to keep.  each: a slice, which
    pictures of each class, class by class; None is all of them, in the order of the files.
    """
    folder = pathlib.Path(folder)
    position = {label: i for i, label in enumerate(classes)}
    numbers, records = [], []
    for label, record in _records(folder, split, set(classes)):
        numbers.append(position[label])
        records.append(record)
    if not records:
        raise FileNotFoundError(f"no {split} pictures of the classes asked for in {folder}")
    numbers = np.asarray(numbers, np.int32)
    if each is not None:
        chosen = of_each(numbers, each)
        numbers, records = numbers[chosen], [records[place] for place in chosen]
    images = np.empty((len(records), SIDE, SIDE, 3), np.uint8)

    def decode(begin):
        for place in range(begin, min(begin + 500, len(records))):
            images[place] = _decode(records[place])

    # Pillow decodes outside the interpreter's lock.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(decode, range(0, len(records), 500)):
            pass  # raises what a thread raised
    return images, numbers


def of_each(labels, numbers):
    """Places of those pictures that have the numbers, a slice, among the ones of their label."""
    return np.concatenate([np.flatnonzero(labels == label)[numbers] for label in np.unique(labels)])


def resized(images, resolution, batch=500):
    """8-bit pictures `[N, H, W, 3]` at another resolution, smoothed where they get smaller."""
    if images.shape[1] == resolution:
        return images
    parts = [
        _resized(images[start : start + batch], resolution)
        for start in range(0, len(images), batch)
    ]
    return np.concatenate(parts)


@functools.partial(jax.jit, static_argnums=1)
def _resized(images, side):
    shape = (len(images), side, side, 3)
    # In [0, 1] for a moment, as the bundled models' own pictures were.
    return jnp.round(jax.image.resize(images / 255.0, shape, "linear") * 255).astype(jnp.uint8)


def _decode(record):
    """record: bytes of an encoded picture, or the path of its file."""
    data = record if isinstance(record, bytes) else record.read_bytes()
    with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        return np.asarray(picture.convert("RGB"))


def _records(folder, split, wanted):
    shards = sorted(folder.glob(f"{split}-*.parquet"))
    if shards:
        import pyarrow.parquet

        for shard in shards:
            table = pyarrow.parquet.read_table(shard)
            labels = table["label"].to_pylist()
            data = table["image"].combine_chunks().field("bytes")
            for label, record in zip(labels, data, strict=True):
                if label in wanted:
                    yield label, record.as_py()
        return
    number = {wnid: i for i, (wnid, _) in enumerate(class_names(folder))}
    if split == "train":
        files = ((path.parts[-3], path) for path in sorted(folder.glob("train/*/images/*.JPEG")))
    else:
        rows = (folder / "val" / "val_annotations.txt").read_text().splitlines()
        files = (
            (row.split("\t")[1], folder / "val" / "images" / row.split("\t")[0]) for row in rows
        )
    for wnid, path in files:
        if number.get(wnid) in wanted:
            yield number[wnid], path
