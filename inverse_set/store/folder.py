"""A folder that holds a whole run, the old one or the new one, whatever happens meanwhile.

A new run is written into DIR/.inverse_set/new.  Once all of it is on the disk, that folder is
renamed to DIR/.inverse_set/ready: this one step decides.  Before it the old run counts and what was
written is litter; after it the new run counts.  Its files then take their places, run.json last,
and what only the old run had is removed.  Whoever finds a `ready` folder goes on with that; every
step of it can be taken again.  The SHA-256s of run.json tell a reader that came in between.

Only files that a run.json of the folder lists are ever replaced or removed.
"""

import contextlib
import os
import shutil
from pathlib import Path

from inverse_set import disk
from inverse_set.errors import ResultsError
from inverse_set.store import lock, record

OURS = ".inverse_set"
_NEW, _READY, _LOCK = "new", "ready", "lock"


class Claim:
    """A folder that this process alone writes to, until the end of a `with` block."""

    def __init__(self, folder, held):
        self.folder, self.lock = folder, held

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.release()

    def release(self):
        """Lets others write to the folder."""
        self.lock.release()
        with contextlib.suppress(OSError):
            (self.folder / OURS).rmdir()  # only if nothing is left in it


def claim(folder, overwrite):
    """`Claim` of a folder that is made if absent; ResultsError if it cannot be had."""
    folder = Path(folder)
    with disk.writing(folder, ResultsError, "another --out"):
        if folder.exists() and not folder.is_dir():
            raise ResultsError(f"{folder} is a file, not a folder", "choose another --out")
        folder.mkdir(parents=True, exist_ok=True)
        if not unfinished(folder):
            _check_free(folder, overwrite)
        held = _lock(folder)
        try:
            _clean(folder)
            _check_free(folder, overwrite)
        except BaseException:
            held.release()
            raise
        return held


def _lock(folder):
    ours = folder / OURS
    if os.path.lexists(ours) and (ours.is_symlink() or not ours.is_dir()):
        raise ResultsError(f"{ours} is not a folder", "move it away or choose another --out")
    return Claim(folder, lock.acquire(ours / _LOCK))


def _check_free(folder, overwrite):
    """ResultsError if a run in `folder` would destroy anything that it may not."""
    if not overwrite and any(path.name != OURS for path in folder.iterdir()):
        finished = (folder / record.NAME).exists()
        wrong = "already holds another run" if finished else "exists and is not empty"
        raise ResultsError(f"{folder} {wrong}", "choose another --out or pass --overwrite")
    names = [record.NAME, *record.FILES, *_pictures(folder)]
    _check_strangers(folder, names, _listed(folder))


def _check_strangers(folder, names, listed):
    """ResultsError if one of the files `names` is there and not of a run."""
    for name in names:
        path = folder / name
        if not os.path.lexists(path):
            continue
        if path.is_dir() and not path.is_symlink():
            raise ResultsError(f"{path} is a folder", "move it away or choose another --out")
        if name not in listed:
            what = f"{path} is not a file of a run in this folder"
            raise ResultsError(what, "move it away or choose another --out; it would be replaced")


def _pictures(folder):
    """Names of the pictures in images/, of whomever."""
    images = folder / "images"
    if images.is_symlink() or (images.exists() and not images.is_dir()):
        raise ResultsError(f"{images} is not a folder", "move it away or choose another --out")
    if not images.exists():
        return []
    return sorted(f"images/{entry.name}" for entry in os.scandir(images) if is_picture(entry.name))


def is_picture(name):
    """Whether people take a file of images/ for a picture of the run."""
    return name.lower().endswith(".png")


def _listed(folder):
    """The files that the folder's run.json vouches for, with itself; none without a run.json."""
    try:
        run = record.read(folder / record.NAME)
    except (FileNotFoundError, ValueError):
        return set()
    listed = {record.NAME, *run["files"]}
    if "images/" in listed:  # a former version's: one digest for all pictures
        listed |= {name for name in _pictures(folder) if record.PICTURE.fullmatch(name)}
    return listed - {"images/"}


def stage(claimed):
    """An empty folder to write a whole run into."""
    _clean(claimed.folder)
    new = claimed.folder / OURS / _NEW
    (new / "images").mkdir(parents=True)
    return new


def discard(claimed):
    """Gives back the space of a run that was not finished."""
    shutil.rmtree(claimed.folder / OURS / _NEW, ignore_errors=True)


def commit(claimed):
    """Makes the staged run the folder's run, in place of the one before."""
    ours = claimed.folder / OURS
    claimed.lock.check()
    for path in (ours / _NEW / "images", ours / _NEW):
        disk.sync(path)
    os.rename(ours / _NEW, ours / _READY)
    disk.sync(ours)
    try:
        _place(claimed.folder)
    except OSError as error:
        what = f"{claimed.folder}: all is saved, but not yet in its place: {error.strerror}"
        remedy = f"`inverse-set verify {claimed.folder}` puts it there; nothing is lost"
        raise ResultsError(what, remedy) from error


def unfinished(folder):
    """Whether a saved run still has to take its place.

    A link is none of ours: what it leads to is another's, and would be moved here.
    """
    ready = folder / OURS / _READY
    return ready.is_dir() and not ready.is_symlink()


def recover(folder):
    """Puts a saved run into its place if its process could not; ResultsError if that fails."""
    if unfinished(folder):
        with disk.writing(folder, ResultsError, "a copy of it"), _lock(folder):
            _clean(folder)


def _clean(folder):
    """Finishes what was decided and removes what was not; the lock is held."""
    if unfinished(folder):
        _place(folder)
    new = folder / OURS / _NEW
    if new.is_dir():
        shutil.rmtree(new)


def _place(folder):
    """Moves a decided run's files to their names; every step can be taken again after a kill.

    While the new samples.npz waits, the old run.json and the old samples.npz are both still there,
    and so is the list of what may be replaced.  Once it has moved, only run.json is left to move.
    """
    ready = folder / OURS / _READY
    manifest, arrays = ready / record.NAME, ready / "samples.npz"
    if manifest.exists():
        if arrays.exists():
            _place_but_samples(folder, ready, manifest)
            os.replace(arrays, folder / "samples.npz")
            disk.sync(folder)
        os.replace(manifest, folder / record.NAME)
        disk.sync(folder)
    shutil.rmtree(ready)


def _place_but_samples(folder, ready, manifest):
    try:
        new = {record.NAME, *record.read(manifest)["files"]}
    except ValueError as error:
        what = f"{manifest} is damaged: {error}"
        raise ResultsError(what, f"delete {ready} to keep the run before it") from error
    old, images = _listed(folder), folder / "images"
    if (ready / "images").is_symlink():
        raise ResultsError(f"{ready / 'images'} is a link", f"delete {ready}: no run left it so")
    waiting = [name for name in sorted(new) if (ready / name).exists()]
    _pictures(folder)
    _check_strangers(folder, waiting, old)
    images.mkdir(exist_ok=True)
    for name in waiting:
        if name not in (record.NAME, "samples.npz"):
            os.replace(ready / name, folder / name)
    for name in old - new:
        (folder / name).unlink(missing_ok=True)
    disk.sync(images)
    if not any(images.iterdir()):
        images.rmdir()
    disk.sync(folder)
