"""Reads Tiny ImageNet: a folder of parquet shards, or the original tiny-imagenet-200 folder."""

import io
import pathlib

import numpy as np
from PIL import Image

FORMATS = ("WEBP", "JPEG", "PNG")


def class_names(folder):
    """[(WordNet id, English names)] in label order."""
    folder = pathlib.Path(folder)
    if (folder / "labels.txt").exists():
        lines = (folder / "labels.txt").read_text().splitlines()
        return [tuple(line.split("\t", 1)) for line in lines if line]
    words = dict(line.split("\t", 1) for line in (folder / "words.txt").read_text().splitlines())
    return [(wnid, words[wnid]) for wnid in sorted((folder / "wnids.txt").read_text().split())]


def load(folder, split, classes):
    """uint8 images `[N, 64, 64, 3]` and labels `[N]`: each picture's place in `classes`.

    split: "train" or "valid".  classes: list of label numbers to keep.
    """
    folder = pathlib.Path(folder)
    position = {label: i for i, label in enumerate(classes)}
    images, labels = [], []
    for label, data in _records(folder, split, set(classes)):
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            images.append(np.asarray(picture.convert("RGB")))
        labels.append(position[label])
    if not images:
        raise FileNotFoundError(f"no {split} pictures of the classes asked for in {folder}")
    return np.stack(images), np.asarray(labels, np.int32)


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
            yield number[wnid], path.read_bytes()
