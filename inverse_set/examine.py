"""A run's folder judged against itself: its files, its pictures and its record; no network is run.

Each fault is told to a callback as one line that begins with the file's name.  The folder may be
hostile: only regular files are opened, sizes are looked at before contents, and a batch of pictures
at a time is in memory.
"""

import hashlib
import math
import os
import sys
from pathlib import Path

import numpy as np

from inverse_set import disk, pictures, results
from inverse_set.store import folder as folders
from inverse_set.store import record
from inverse_set.types import Status

BATCH_BYTES = 32 << 20  # of decoded pictures at a time
MAX_BYTES = 8 << 30  # most that is read of any file
COUNTS = ("num_seeds", "seeds_inside", "seed_steps", "sample_steps", "dropped")  # if they are there
MAX_TEXT = 1000  # characters of a name; the longest that ships has 121


def files(folder, run, tell):
    """Tells of files that are missing, left over or changed; pictures are looked at by `batches`.

    Returns the SampleSet, None if samples.npz cannot be read.
    """
    folder, listed = Path(folder), run["files"]
    samples = None
    try:
        samples = results.read_samples(folder, run)
    except ValueError as error:
        tell(f"samples.npz {error}")
    for name in record.FILES[1:]:
        if name in listed:
            _check_digest(folder / name, name, listed[name], tell)
    if samples is not None:
        expected = record.expected_files(len(samples.images), samples.pictures)
        _check_names(folder, listed, expected, tell)
    return samples


def _check_digest(path, name, digest, tell):
    try:
        with disk.reading(path) as file:
            if file.seek(0, os.SEEK_END) > MAX_BYTES:
                raise ValueError(f"it is larger than {MAX_BYTES} bytes")
            if disk.digest(file) != digest:
                tell(f"{name} is not as saved: its SHA-256 is not the one in run.json")
    except FileNotFoundError:
        tell(f"{name} is missing")
    except (OSError, ValueError) as error:
        tell(f"{name} cannot be read: {results.reason(error)}")


def _check_names(folder, listed, expected, tell):
    """The files listed are those of a run of so many samples, and there are no others."""
    known = set(expected)
    for name in expected:
        if name not in listed:
            tell(f"run.json gives no SHA-256 of {name}")
    for name in listed:
        if name not in known:
            tell(f"run.json lists {name}, which a run of this many samples has not")
    for name in record.FILES:
        if name not in known and os.path.lexists(folder / name):
            tell(f"{name} does not belong to the run")
    images = folder / "images"
    if not os.path.lexists(images):
        return
    if images.is_symlink() or not images.is_dir():
        tell("images is not a folder")
        return
    with os.scandir(images) as entries:
        for entry in entries:
            name = f"images/{entry.name}"
            if name not in known and folders.is_picture(name):
                tell(f"{name} does not belong to the run")


def batches(folder, run, samples, tell):
    """Yields (rows `[b]`, pictures uint8 `[b, H, W, C]`) of the pictures that can be read.

    Tells of each that is missing, damaged, not as saved, or not the one in samples.npz.  Inputs
    that are no pictures are those of samples.npz.
    """
    shape = samples.images.shape[1:]
    size = max(1, BATCH_BYTES // max(1, samples.images[:1].nbytes))
    if not samples.pictures:
        for start in range(0, len(samples.images), size):
            rows = np.arange(start, min(start + size, len(samples.images)))
            yield rows, samples.images[rows]
        return
    images = Path(folder) / "images"
    real = not images.is_symlink()
    for start in range(0, len(samples.images) if real else 0, size):
        rows, found = [], []
        for row in range(start, min(start + size, len(samples.images))):
            name = record.picture_name(row)
            try:
                picture, digest = _read_picture(Path(folder) / name, shape)
            except FileNotFoundError:
                tell(f"{name} is missing")
                continue
            except (OSError, ValueError) as error:
                tell(f"{name} cannot be read: {results.reason(error)}")
                continue
            if not np.array_equal(picture, samples.images[row]):
                tell(f"{name} shows another picture than samples.npz holds")
            elif digest != run["files"].get(name, digest):
                tell(f"{name} is not as saved: its SHA-256 is not the one in run.json")
            rows.append(row)
            found.append(picture)
        if rows:
            yield np.asarray(rows), np.stack(found)


def _read_picture(path, shape):
    with disk.reading(path) as file:
        most = 2 * shape[0] * shape[1] * shape[2] + 65536  # a PNG hardly exceeds its pixels
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it is larger than {most} bytes")
    return pictures.read_png(data, shape), hashlib.sha256(data).hexdigest()


def record_itself(run, samples, tell):
    """Tells where run.json contradicts itself or samples.npz."""
    count, columns = samples.activations.shape
    if not _is_count(run.get("samples")) or run["samples"] != count:
        tell(f"run.json counts {_short(run.get('samples'))} samples, samples.npz holds {count}")
    asked = run.get("num_samples")
    if "num_samples" in run and (not _is_count(asked) or count > asked):
        tell(f"run.json asks for {_short(asked)} samples, samples.npz holds {count}")
        asked = None
    for key in COUNTS:
        if key in run and not _is_count(run[key]):
            tell(f"run.json counts {_short(run[key])} {key}")
    if "status" in run:
        _check_status(run, count, asked, tell)
    settings = run.get("settings")
    if isinstance(settings, dict) and settings.get("rule", run.get("rule")) != run.get("rule"):
        rules = _short(run.get("rule")), _short(settings["rule"])
        tell(f"run.json gives the rule as {rules[0]} and in its settings as {rules[1]}")
    if (intervals := stated_intervals(run)) is None:
        tell("run.json has no constraints, each with a name and an interval")
    elif len(intervals) != columns:
        tell(f"run.json has {len(intervals)} constraints, samples.npz activations of {columns}")


def _check_status(run, count, asked, tell):
    """asked: how many samples the run was to find, None if that is not known."""
    name = run["status"]
    status = next((each for each in Status if each.name.lower() == name), None)
    if status is None:
        tell(f"run.json has the status {_short(name)}, which there is not")
        return
    settings = run.get("settings")
    joint = isinstance(settings, dict) and settings.get("method") == "joint"
    whole = count > 0 and count == (count if asked is None else asked)
    partial = count > 0 and count < (math.inf if asked is None else asked)
    contradicted = {
        Status.RUNNING: True,
        Status.OK: not whole,
        Status.PLATEAU: not whole,
        Status.BUDGET: not whole,
        Status.PARTIAL: not partial,
        Status.INFEASIBLE: count > 0,
        # The joint method has all of its samples from the first, and may be stopped before its end.
        Status.INTERRUPTED: not joint and asked is not None and count >= asked,
    }.get(status, False)
    if contradicted:
        of = "" if asked is None else f" of the {asked} asked for"
        tell(f"run.json says {name} of a run with {count} samples{of}")
    sentence = run.get("status_sentence", status.sentence)
    if sentence != status.sentence:
        tell(f"run.json explains the status {name} as {_short(sentence)}")


def stated_intervals(run):
    """`[(name, low, high)]` of run.json's constraints, infinite where it says null; None if bad."""
    constraints = run.get("constraints")
    if not isinstance(constraints, list):
        return None
    found = []
    for each in constraints:
        if not isinstance(each, dict) or not is_text(each.get("name")):
            return None
        low, high = each.get("low"), each.get("high")
        low, high = -np.inf if low is None else low, np.inf if high is None else high
        if not (_is_bound(low) and _is_bound(high) and low <= high):
            return None
        found.append((each["name"], low, high))
    return found


def is_text(value):
    """Whether run.json's value is a text of a length that makes sense."""
    return isinstance(value, str) and len(value) <= MAX_TEXT


def _is_bound(value):
    """Whether it is a number that a float can hold; JSON's integers have no end."""
    most = sys.float_info.max
    return isinstance(value, float) or (isinstance(value, int) and -most <= value <= most)


def _is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _short(value):
    text = repr(value) if not isinstance(value, list | dict) else type(value).__name__
    return text if len(text) <= 80 else text[:77] + "..."
