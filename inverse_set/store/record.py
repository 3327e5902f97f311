"""run.json: what it may hold, and which files of its folder it vouches for."""

import json
import math
import re

import numpy as np

from inverse_set import disk

NAME = "run.json"
FILES = ("samples.npz", "samples.csv", "grid.png", "animation.webp", "gallery.html")
PICTURE = re.compile(r"images/[0-9]{5,9}\.png")
_DIGEST = re.compile(r"[0-9a-f]{64}")
# A run needs far less; JSON of a megabyte can take thirty in memory, and deep names take minutes.
_MAX_BYTES = 8 << 20
_MAX_VALUES = 1 << 17


def picture_name(index):
    """Where a folder keeps picture number `index`."""
    return f"images/{index:05d}.png"


def expected_files(count, pictures=True):
    """Every file of a run of `count` samples but run.json, in order; pictures: they are such."""
    names = FILES if count else FILES[:2]
    return [*names, *map(picture_name, range(count if pictures else 0))]


def text(run, constraints, count, files):
    """Bytes of run.json: `run`, the constraints, the number of samples, {file: SHA-256}."""
    intervals = [{"name": c.name, "low": c.low, "high": c.high} for c in constraints]
    whole = _plain({**run, "constraints": intervals, "samples": count, "files": files})
    return json.dumps(whole, indent=2, allow_nan=False).encode() + b"\n"


def read(path):
    """The dict of a run.json; ValueError if it is not one, OSError if it cannot be read."""
    size = _size(path.with_name("samples.npz"))
    with disk.reading(path) as file:
        most = _MAX_BYTES + size // 2
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it is larger than {most} bytes")
    if not data.isascii():
        raise ValueError("it has bytes beyond ASCII, a run's never has")
    most = _MAX_VALUES + size // 512
    if data.count(b",") + data.count(b"[") + data.count(b"{") > most:
        raise ValueError(f"it holds more than {most} values")
    try:
        run = json.loads(data, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
    if not isinstance(run, dict) or not isinstance(run.get("files"), dict):
        raise ValueError("it lists no files")
    for name, digest in run["files"].items():
        known = name in FILES or name == "images/" or PICTURE.fullmatch(name)
        if not known or not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise ValueError(f"it lists {name[:100]!r}, which no run has")
    if "samples.npz" not in run["files"]:
        raise ValueError("it lists no samples.npz")
    return run


def _size(path):
    """What the folder's other sizes are held against: a run of many samples has a long run.json."""
    try:
        with disk.reading(path) as file:
            return file.seek(0, 2)
    except (OSError, ValueError):
        return 0


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


def _refuse_constant(name):
    raise ValueError(f"{name} is not JSON")
