"""A sample set on disk: claim a folder, save a run there, load it back.

A run's folder holds `images/00000.png ...`, `samples.npz`, `samples.csv`, `grid.png`,
`animation.webp`, `gallery.html` and `run.json`.  Every file appears whole or not at all, and
`run.json` comes last: a folder with it is a finished run, a folder without it is not.
What is read back is not trusted: sizes are checked before memory is asked for, and nothing is
unpickled.
"""

import contextlib
import csv
import hashlib
import io
import json
import math
import os
import re
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from inverse_set import gallery, pictures
from inverse_set.disk import replacing, sync, temporary_name, write_atomically, writing
from inverse_set.errors import UserError

FILES = ("samples.npz", "samples.csv", "grid.png", "animation.webp", "gallery.html")
MAX_BYTES = 8 << 30  # most that load() reads from one samples.npz
MAX_JSON_BYTES = 64 << 20
_PICTURE = re.compile(r"[0-9]{5,}\.png")
_OURS = "|".join(map(re.escape, (*FILES, "run.json", "images", "probe")))
_LEFTOVER = re.compile(rf"({_OURS})\.tmp-[0-9a-f]{{12}}")
_FIELDS = {  # dtype and rank on the disk
    "images": ("|u1", 4),
    "codes": ("<f4", 2),
    "activations": ("<f4", 2),
    "raw_activations": ("<f4", 2),
    "features": ("<f4", 2),
    "step": ("<i4", 1),
    "chain": ("<i4", 1),
}


class ResultsError(UserError):
    """A folder or file that cannot be used."""


class SampleSet(NamedTuple):
    """n samples of a run, in the order in which they were taken.

    images: uint8 `[n, H, W, 3]`, RGB, exactly the saved pictures.
    codes: float32 `[n, D]` generator codes.
    activations: float32 `[n, P]` of the saved 8-bit pictures, in units of the neurons' outputs.
    raw_activations: float32 `[n, P]` before rounding to 8 bits, same units.
    features: float32 `[n, F]`, what distances between samples are measured in.
    step: int32 `[n]`, the step each sample was taken at.
    chain: int32 `[n]`, the chain each sample comes from.
    """

    images: np.ndarray
    codes: np.ndarray
    activations: np.ndarray
    raw_activations: np.ndarray
    features: np.ndarray
    step: np.ndarray
    chain: np.ndarray


def claim(folder, overwrite=False):
    """Makes `folder` ready before the sampling starts, or raises ResultsError; returns its path.

    An absent folder is created, and a file is written there and removed to see that this works.
    A folder that is not empty is refused unless `overwrite`; then the files of an earlier run
    are removed, run.json first, and anything else is kept.
    """
    folder = Path(folder)
    with writing(folder, ResultsError, "another --out"):
        if folder.exists() and not folder.is_dir():
            raise ResultsError(f"{folder} is a file, not a folder", "choose another --out")
        folder.mkdir(parents=True, exist_ok=True)
        if not overwrite and any(folder.iterdir()):
            finished = (folder / "run.json").exists()
            wrong = "already holds another run" if finished else "exists and is not empty"
            raise ResultsError(f"{folder} {wrong}", "choose another --out or pass --overwrite")
        probe = temporary_name(folder / "probe")
        try:
            probe.write_bytes(b"probe")
        finally:
            probe.unlink(missing_ok=True)
        _remove_run(folder)
    return folder


def save(folder, samples, constraints, run, summary, title):
    """Writes a whole run into `folder`, in place of any run there; it is `claim` that refuses.

    samples: SampleSet.  constraints: P objects with `name`, `low`, `high`.
    run: dict for run.json, to which "files" (relative path -> SHA-256) is added; numbers that are
    not finite become null there.  summary (label -> text) and title head the gallery page.
    With n = 0 there are no pictures: only samples.npz, samples.csv and run.json are written.
    Raises ResultsError if the disk refuses; without run.json what is there is not a run.
    """
    folder, samples = Path(folder), _checked(samples, len(constraints))
    images = samples.images
    with writing(folder, ResultsError, "another --out"):
        folder.mkdir(parents=True, exist_ok=True)
        _remove_run(folder)
        with replacing(folder / "samples.npz") as file:
            _write_npz(file, samples)
        write_atomically(folder / "samples.csv", _bytes(_table(samples, constraints)))
        files = {}
        if len(images):
            files["images/"] = _write_images(folder, images)
            write_atomically(folder / "grid.png", pictures.png(pictures.grid(images)))
            write_atomically(folder / "animation.webp", pictures.animation(images))
            activations, step = samples.activations, samples.step
            page = gallery.page(images, activations, constraints, summary, title, step)
            write_atomically(folder / "gallery.html", _bytes(page))
        files |= {name: _sha256(folder / name) for name in FILES if (folder / name).exists()}
        text = json.dumps(_plain(run) | {"files": files}, indent=2, allow_nan=False)
        write_atomically(folder / "run.json", text.encode() + b"\n")


def load(folder):
    """`(SampleSet, run)` of a finished run: the arrays of samples.npz and the dict of run.json.

    Raises ResultsError naming the file that is missing, damaged, or not the one run.json describes.
    """
    folder = Path(folder)
    path = folder / "run.json"
    if not path.is_file():
        what = f"{folder} is not a finished run: run.json is missing"
        raise ResultsError(what, "give the folder of a finished run, or run the sampling again")
    with _reading(path):
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError(f"larger than {MAX_JSON_BYTES} bytes")
        run = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
        if not isinstance(run, dict) or not isinstance(run.get("files"), dict):
            raise ValueError("it lists no files")
    path = folder / "samples.npz"
    with _reading(path):
        samples = _read_npz(path)
        if _sha256(path) != run["files"].get("samples.npz"):
            raise ValueError("its SHA-256 is not the one in run.json")
    return samples, run


def read_pictures(folder, count):
    """The saved pictures of a run, uint8 `[count, H, W, 3]`, read from images/00000.png and so on.

    Raises ResultsError naming the file if one is missing, left over, damaged, or unlike the first.
    """
    images = Path(folder) / "images"
    names = [f"{i:05d}.png" for i in range(count)]
    present = {path.name for path in images.glob("*.png")}
    for name in sorted(present.symmetric_difference(names)):
        wrong = "does not belong to the run" if name in present else "is missing"
        remedy = f"the run has {count} pictures; restore them or run the sampling again"
        raise ResultsError(f"{images / name} {wrong}", remedy)
    found = []
    for name in names:
        with _reading(images / name):
            found.append(_read_png(images / name))
            if found[-1].shape != found[0].shape:
                raise ValueError(f"it is {found[-1].shape}, {names[0]} is {found[0].shape}")
    return np.stack(found) if found else np.zeros((0, 0, 0, 3), np.uint8)


@contextlib.contextmanager
def _reading(path):
    """Turns whatever a missing or hostile file provokes into a ResultsError that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise ResultsError(f"{path} is missing", "run the sampling again") from error
    except Exception as error:  # numpy, zipfile and Pillow raise almost anything over forged bytes
        reason = " ".join(str(error).split()) or type(error).__name__
        remedy = "restore it or run the sampling again"
        raise ResultsError(f"{path} is damaged: {reason}", remedy) from error


def _remove_run(folder):
    """Removes the files of a run or of a run cut short, run.json first; keeps everything else."""
    images = folder / "images"
    if images.is_symlink() or (images.exists() and not images.is_dir()):
        raise ResultsError(f"{images} is not a folder", "move it away or choose another --out")
    for name in ("run.json", *FILES):
        if (folder / name).is_dir():
            what = f"{folder / name} is a folder"
            raise ResultsError(what, "move it away or choose another --out")
    (folder / "run.json").unlink(missing_ok=True)
    sync(folder)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    for path in [images, *folder.iterdir()]:
        if path != images and not _LEFTOVER.fullmatch(path.name):
            continue
        if path.is_dir() and not path.is_symlink():
            for entry in path.iterdir():
                if _PICTURE.fullmatch(entry.name) and not entry.is_dir():
                    entry.unlink()
            if not any(path.iterdir()):
                path.rmdir()
        elif path != images:
            path.unlink()


def _checked(samples, constraints):
    """The same samples as contiguous arrays of the documented types, or an error."""
    if (given := np.asarray(samples.images).dtype) != np.uint8:
        raise ValueError(f"expected uint8 images, got {given}")
    arrays = {name: np.asarray(value) for name, value in samples._asdict().items()}
    for name, (dtype, _) in _FIELDS.items():
        arrays[name] = np.ascontiguousarray(arrays[name].astype(dtype, casting="same_kind"))
    _check_shapes({name: array.shape for name, array in arrays.items()})
    if (given := arrays["activations"].shape[1]) != constraints or not constraints:
        raise ValueError(f"{constraints} constraints, {given} activations a sample")
    return SampleSet(**arrays)


def _check_shapes(shapes):
    """ValueError unless `{field: shape}` is what SampleSet documents."""
    for name, shape in shapes.items():
        if len(shape) != _FIELDS[name][1] or shape[0] != shapes["images"][0]:
            raise ValueError(f"{name} has shape {shape}, images have {shapes['images']}")
    if shapes["images"][3] != 3:
        raise ValueError(f"expected images [n, H, W, 3], got {shapes['images']}")
    if shapes["activations"] != shapes["raw_activations"]:
        raise ValueError(f"raw_activations and activations differ in shape: {shapes}")


def _write_npz(file, samples):
    """An uncompressed .npz whose bytes depend on the arrays alone, not on date, system or zlib."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in samples._asdict().items():
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o644 << 16
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)


def _read_npz(path):
    """SampleSet from a samples.npz; every declared size is held against the file before use."""
    with zipfile.ZipFile(path) as archive:
        members, size = archive.infolist(), path.stat().st_size
        if sorted(m.filename for m in members) != sorted(f"{name}.npy" for name in _FIELDS):
            raise ValueError("expected the arrays " + ", ".join(_FIELDS))
        if any(m.compress_type or m.file_size != m.compress_size for m in members):
            raise ValueError("its arrays are compressed, a run's never are")
        if (total := sum(m.file_size for m in members)) > min(MAX_BYTES, size):
            raise ValueError(f"declares {total} bytes, has {size}, at most {MAX_BYTES} are read")
        samples = SampleSet(**{name: _read_array(archive, name) for name in _FIELDS})
    _check_shapes({name: array.shape for name, array in samples._asdict().items()})
    return samples


def _read_array(archive, name):
    with archive.open(f"{name}.npy") as member:
        if np.lib.format.read_magic(member) != (1, 0):
            raise ValueError(f"{name}: expected .npy version 1.0")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
        expected, rank = _FIELDS[name]
        if dtype.str != expected or fortran or len(shape) != rank or min(shape) < 0:
            raise ValueError(f"{name}: expected {expected} of rank {rank}, has {dtype.str} {shape}")
        left = archive.getinfo(f"{name}.npy").file_size - member.tell()
        if math.prod(shape) * dtype.itemsize != left:
            raise ValueError(f"{name}: declares {dtype.str} {shape}, {left} bytes follow")
        return np.frombuffer(member.read(), dtype).reshape(shape).copy()


def _write_images(folder, images):
    """Writes images/ so that it appears as a whole; returns one SHA-256 over all files in order.

    Pictures join an images/ that holds files of someone else one by one, each whole.
    """
    final, temporary, digest = (
        folder / "images",
        temporary_name(folder / "images"),
        hashlib.sha256(),
    )
    temporary.mkdir()
    try:
        for i, image in enumerate(images):
            data = pictures.png(image)
            digest.update(data)
            (temporary / f"{i:05d}.png").write_bytes(data)
        for path in [*temporary.iterdir(), temporary]:
            sync(path)
        if final.exists():
            for path in list(temporary.iterdir()):
                os.replace(path, final / path.name)
            sync(final)
        else:
            os.replace(temporary, final)
        sync(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return digest.hexdigest()


def _read_png(path):
    """uint8 `[H, W, 3]`; only PNG, only RGB, and no picture large enough for Pillow to warn of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=("PNG",)) as picture:
            if picture.mode != "RGB":
                raise ValueError(f"expected an RGB picture, got {picture.mode}")
            return np.array(picture)


def _table(samples, constraints):
    """Text of samples.csv; floats in the fewest digits that read back as the same number."""
    columns = ("activation", "raw_activation", "low", "high", "inside")
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    named = [f"{column}[{c.name}]" for c in constraints for column in columns]
    writer.writerow(["index", "file", "step", "chain", *named])
    for i, values in enumerate(samples.activations):
        row = [i, f"images/{i:05d}.png", samples.step[i], samples.chain[i]]
        for p, c in enumerate(constraints):
            inside = "true" if c.low <= values[p] <= c.high else "false"
            row += [values[p], samples.raw_activations[i, p], c.low, c.high, inside]
        writer.writerow(row)
    return stream.getvalue()


def _plain(value):
    """`value` in JSON's own types: floats not finite become null, unknown objects their text."""
    if isinstance(value, np.ndarray | np.generic) or hasattr(value, "__array__"):
        value = np.asarray(value).tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _bytes(text):
    return text.encode(errors="backslashreplace")


def _refuse_constant(name):
    raise ValueError(f"{name} is not JSON")


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
