"""A sample set on disk: claim a folder, save a run there, load it back.

A run's folder holds `images/00000.png ...` (if the inputs are
pictures), `samples.npz`, `samples.csv`, `grid.png`,
`animation.webp`, `gallery.html` and `run.json`.  A new run takes the place of an old one as a
whole (store/folder.py), and one process at a time writes to a folder (store/lock.py).
"""

import csv
import io
from pathlib import Path

from inverse_set import disk, gallery, pictures
from inverse_set.errors import ResultsError
from inverse_set.store import folder as folders
from inverse_set.store import record
from inverse_set.store import samples as arrays
from inverse_set.store.record import FILES
from inverse_set.store.samples import SampleSet

__all__ = ["FILES", "ResultsError", "SampleSet", "claim", "load", "save"]


def claim(folder, overwrite=False):
    """Makes `folder` ready before the sampling starts, or raises ResultsError; returns a `Claim`.

    Use it in a `with` block: until its end this process alone writes there.  An absent folder is
    created; one that another process writes to is refused, and so is one that is not empty unless
    `overwrite`.  Nothing is removed: the run that is there stays until `save` has a whole new one.
    `overwrite` replaces the files of a run, and keeps all others; where a stranger's file has the
    name of one of ours, the folder is refused.
    """
    return folders.claim(folder, overwrite)


def save(place, samples, constraints, run, summary, title):
    """Writes a whole run into a folder, in place of any run there.

    place: what `claim` returned, or a folder, which is then claimed with `overwrite` for the while.
    samples: SampleSet.  constraints: P objects with `name`, `low`, `high`.
    run: dict for run.json, to which "constraints", "samples" (their number) and "files" (relative
    path -> SHA-256 of the bytes written) are added; numbers that are not finite become null there.
    summary (label -> text) and title head the gallery page.
    With n = 0 there are no pictures: only samples.npz, samples.csv and run.json are written.
    Raises ValueError for arrays of other shapes or types, before anything is written, and
    ResultsError if the disk refuses: then the run before is still there.
    """
    samples = arrays.checked(samples, len(constraints))
    if not isinstance(place, folders.Claim):
        with claim(place, overwrite=True) as claimed:
            save(claimed, samples, constraints, run, summary, title)
        return
    with disk.writing(place.folder, ResultsError, "another --out"):
        try:
            new = folders.stage(place)
            files = {
                name: disk.create(new / name, write)
                for name, write in _writers(samples, constraints, summary, title)
            }
            text = record.text(run, constraints, len(samples.images), files)
            disk.create(new / record.NAME, lambda file: file.write(text))
            folders.commit(place)
        except BaseException:
            folders.discard(place)
            raise


def _writers(samples, constraints, summary, title):
    """(name, function that writes to an open file) of each file of a run but run.json."""

    def put(data):
        return lambda file: file.write(data)

    images = samples.images
    yield "samples.npz", lambda file: arrays.write(file, samples)
    yield "samples.csv", put(_bytes(_table(samples, constraints)))
    if not len(images):
        return
    if samples.pictures:
        for i, image in enumerate(images):
            yield record.picture_name(i), put(pictures.png(image))
    seen = pictures.visible(images)
    yield "grid.png", put(pictures.png(pictures.grid(seen)))
    yield "animation.webp", put(pictures.animation(seen))
    page = gallery.page(seen, samples.activations, constraints, summary, title, samples.step)
    yield "gallery.html", put(_bytes(page))


def load(folder):
    """`(SampleSet, run)` of a finished run: the arrays of samples.npz and the dict of run.json.

    A save that was cut short once all was written is finished first.
    Raises ResultsError naming the file that is missing, damaged, or not the one run.json describes.
    """
    run = read_record(folder)
    try:
        return read_samples(folder, run), run
    except ValueError as error:
        path = Path(folder) / "samples.npz"
        what = f"{path} {error}"
        raise ResultsError(what, "restore it or run the sampling again") from error


def read_record(folder):
    """The dict of run.json; ResultsError if the folder holds no finished run."""
    folder = Path(folder)
    folders.recover(folder)
    path = folder / record.NAME
    try:
        return record.read(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        what = f"{folder} is not a finished run: run.json is missing"
        remedy = "give the folder of a finished run, or run the sampling again"
        raise ResultsError(what, remedy) from error
    except (OSError, ValueError) as error:
        what = f"{path} is damaged: {reason(error)}"
        raise ResultsError(what, "restore it or run the sampling again") from error


def read_samples(folder, run):
    """The SampleSet of samples.npz; ValueError says what is wrong with the file."""
    try:
        with disk.reading(Path(folder) / "samples.npz") as file:
            samples = arrays.read(file)
            if disk.digest(file) != run["files"]["samples.npz"]:
                raise ValueError("its SHA-256 is not the one in run.json")
            return samples
    except FileNotFoundError:
        raise ValueError("is missing") from None
    except Exception as error:  # numpy and zipfile raise almost anything over forged bytes
        raise ValueError(f"is damaged: {reason(error)}") from error


def reason(error):
    """What an exception says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _table(samples, constraints):
    """Text of samples.csv; floats in the fewest digits that read back as the same number."""
    columns = ("activation", "raw_activation", "low", "high", "inside")
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    named = [f"{column}[{c.name}]" for c in constraints for column in columns]
    writer.writerow(["index", "file", "step", "chain", *named])
    for i, values in enumerate(samples.activations):
        file = record.picture_name(i) if samples.pictures else ""
        row = [i, file, samples.step[i], samples.chain[i]]
        for p, c in enumerate(constraints):
            inside = "true" if c.low <= values[p] <= c.high else "false"
            row += [values[p], samples.raw_activations[i, p], c.low, c.high, inside]
        writer.writerow(row)
    return stream.getvalue()


def _bytes(text):
    return text.encode(errors="backslashreplace")
