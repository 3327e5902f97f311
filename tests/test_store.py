"""A run's folder: the old run or the new one, whatever happens; one writer; nobody else's files."""

import builtins
import errno
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from inverse_set import disk, results
from inverse_set.results import ResultsError
from inverse_set.store import lock
from tests.test_results import EVERYTHING, contents, refusal, sample_set, save

OURS = ".inverse_set"
OLD, NEW, FRESH = sample_set(5), sample_set(3), None


class Killed(BaseException):
    """Stands for a kill: from then on, every file operation of the process fails with it."""


class Operations:
    """Counts file operations below a folder; number `at` raises, or calls `end`.

    After a `Killed`, every later one raises it too: what a dead process would not do, is not done.

    Opening, making, renaming and removing are seen by Python's audit events, writes and flushes by
    wrappers.  Audit hooks stay for ever, so there is one, which asks whoever counts.
    """

    EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.scandir")
    current = None

    def __init__(self, folder, at=None, error=None, end=None):
        self.folder, self.at, self.error, self.end = str(folder), at, error, end
        self.count, self.names = 0, []

    def __enter__(self):
        Operations.current = self
        return self

    def __exit__(self, *error):
        Operations.current = None

    @classmethod
    def audit(cls, event, arguments):
        if cls.current is None or event not in cls.EVENTS:
            return
        path = arguments[0]
        named = isinstance(path, str | os.PathLike) and str(path).startswith(cls.current.folder)
        opened = isinstance(path, int)  # ftruncate, and the folders that rmtree opens
        relative = event in ("os.remove", "os.rmdir", "open") and arguments[-1] not in (-1, None)
        if named or opened or relative:
            cls.step(event)

    @classmethod
    def step(cls, name):
        if (self := cls.current) is None:
            return
        self.count += 1
        self.names.append(name)
        dead = self.error is Killed and self.at is not None and self.count > self.at
        if self.count - 1 == self.at and self.end:
            self.end()
        if self.count - 1 == self.at or dead:
            raise self.error() if self.error is Killed else self.error


class _Counted(io.FileIO):
    def write(self, data):
        Operations.step("write")
        return super().write(data)


def _open(path, mode="r", **options):
    if mode == "x+b":
        return io.BufferedRandom(_Counted(path, mode))
    return builtins.open(path, mode, **options)


STUBS = (  # what takes milliseconds, for hundreds of saves
    (results.gallery, "page", lambda *_: "page"),
    (results.pictures, "grid", lambda images: images[0]),
    (results.pictures, "animation", lambda images: b"moves"),
)


@pytest.fixture
def counted(monkeypatch):
    """Every file operation of a save is counted."""
    if not hasattr(Operations, "hooked"):
        sys.addaudithook(Operations.audit)
        Operations.hooked = True

    real = os.write

    def write(*arguments):
        Operations.step("write")
        return real(*arguments)

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(os, "fsync", lambda handle: Operations.step("fsync"))  # the power stays on
    monkeypatch.setattr(disk, "open", _open, raising=False)
    for module, name, stub in STUBS:
        monkeypatch.setattr(module, name, stub)


def whole(folder, samples):
    """The folder is a finished run of exactly these samples: every byte of it, and no litter."""
    loaded, run = results.load(folder)
    np.testing.assert_array_equal(loaded.images, samples.images)
    names = {f"images/{i:05d}.png" for i in range(len(samples.images))}
    assert set(contents(folder)) == names | (EVERYTHING - {"images"})
    assert set(run["files"]) == set(contents(folder)) - {"run.json"}
    return True


def state(folder):
    """Which run `load` finds in a folder: the old one, the new one, or none; nothing else."""
    try:
        loaded, run = results.load(folder)
    except ResultsError as error:
        assert "run.json is missing" in error.what, error.what
        return "none"
    for name, digest in run["files"].items():
        data = (folder / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == digest, name
    return "old" if len(loaded.images) == len(OLD.images) else "new"


def stopped(base, at, error, overwrite):
    """A save in which operation number `at` fails; (folder, which run it then holds, finished)."""
    folder = base / f"{at:03d}"
    if overwrite:
        save(folder, OLD)
    with Operations(folder, at, error) as operations:
        try:
            with results.claim(folder, overwrite) as place:
                save(place, NEW)
        except (ResultsError, Killed):
            pass
    return folder, state(folder), operations.count <= at


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("error", [Killed, OSError(errno.EIO, "Input/output error")])
def test_one_run_or_the_other_whatever_operation_fails(tmp_path, counted, overwrite, error):
    found = []
    for at in range(1000):
        folder, held, finished = stopped(tmp_path, at, error, overwrite)
        found.append(held)
        if finished:
            break
        save(folder, NEW)  # whatever was left, the next one works and clears it
        assert whole(folder, NEW), at
        assert not (folder / OURS).exists(), at
    else:
        raise AssertionError("the save never ended")
    assert held == "new" and len(found) > 50
    before = "old" if overwrite else "none"
    assert set(found) == {"new", before} and found.count(before) > 30
    if error is Killed:  # one operation decides; some errors need not stop a save
        assert found == sorted(found, key=["none", "old", "new"].index)


def test_every_operation_is_seen(tmp_path, counted):
    """The injection would prove nothing if it missed the operations that change the folder."""
    save(tmp_path / "run", OLD)
    with Operations(tmp_path / "run") as operations:
        save(tmp_path / "run", NEW)
    names = operations.names
    files = len(NEW.images) + 6
    assert names.count("os.rename") == files + 1  # each into its place, and the one that decides
    assert names.count("fsync") >= files + 4
    assert names.count("write") >= files
    assert names.count("os.remove") >= 3  # two old pictures, the lock
    assert names.count("os.mkdir") >= 3 and names.count("os.rmdir") >= 3


KILLED = """
import os, sys
sys.path[:0] = [{root!r}]
from tests.test_results import save
from tests.test_store import Operations, OLD, NEW, STUBS

sys.addaudithook(Operations.audit)
os.fsync = lambda handle: Operations.step("fsync")
save({warm!r}, NEW)  # so that children need not import what a first save does
for count in range(500):
    folder = os.path.join({out!r}, f"{{count:03d}}")
    save(folder, OLD)
    child = os.fork()
    if not child:
        with Operations(folder, count, end=lambda: os._exit(9)):
            save(folder, NEW)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


def test_processes_killed_at_any_operation_leave_one_run_or_the_other(tmp_path, counted):
    """Real processes that end without a word: their locks are dead, their runs are not."""
    out = tmp_path / "killed"
    out.mkdir()
    root = str(Path(__file__).parent.parent)
    script = KILLED.format(root=root, out=str(out), warm=str(tmp_path / "warm"))
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300, env=environment)
    folders = sorted(out.iterdir())
    assert len(folders) > 50
    found = []
    for folder in folders:
        found.append(state(folder))
        save(folder, NEW)
        assert whole(folder, NEW)
    assert found == sorted(found, reverse=True)  # old ... old new ... new
    assert set(found) == {"old", "new"}


def test_a_killed_first_run_needs_no_overwrite(tmp_path):
    (tmp_path / OURS / "new" / "images").mkdir(parents=True)
    (tmp_path / OURS / "new" / "samples.npz").write_bytes(b"half")
    (tmp_path / OURS / "lock").write_text("{")
    with results.claim(tmp_path) as place:
        save(place)
    assert {path.name for path in tmp_path.iterdir()} == EVERYTHING


def test_full_disk_keeps_the_old_run_and_gives_the_space_back(tmp_path, monkeypatch):
    before = contents(save(tmp_path))
    real, calls = os.fsync, iter(range(6))

    def fsync(handle):
        if next(calls, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    error = refusal(save, tmp_path, NEW)
    assert "no space left" in error.what and "--out" in error.remedy
    assert contents(tmp_path) == before


def test_a_run_that_cannot_be_put_in_its_place_is_not_lost(tmp_path, monkeypatch):
    save(tmp_path, OLD)
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda *_: fail(errno.EIO))
    assert "inverse-set verify" in refusal(save, tmp_path, NEW).remedy
    assert "cannot write" in refusal(results.load, tmp_path).what
    monkeypatch.setattr(os, "replace", real)
    assert state(tmp_path) == "new" and whole(tmp_path, NEW)


def fail(number):
    raise OSError(number, os.strerror(number))


@pytest.mark.parametrize("name", ["EIO", "ENOSYS", "EBADF", "EACCES", "EINVAL", "ENOTSUP"])
def test_file_systems_that_cannot_flush_folders(tmp_path, monkeypatch, name):
    real = os.fsync

    def fsync(handle):
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            fail(getattr(errno, name))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    assert whole(save(tmp_path, NEW), NEW)


@pytest.mark.parametrize("name", ["EIO", "ENOSYS", "EINVAL"])
def test_the_flush_of_a_file_must_hold(tmp_path, monkeypatch, name):
    save(tmp_path, OLD)
    real = os.fsync

    def fsync(handle):
        if os.readlink(f"/proc/self/fd/{handle}").endswith("grid.png"):
            fail(getattr(errno, name))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    assert "cannot write" in refusal(save, tmp_path, NEW).what
    assert whole(tmp_path, OLD)


def test_disk_errors_that_folders_do_not_have(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: fail(errno.ENOSPC))
    with pytest.raises(OSError):
        disk.sync(tmp_path)


def test_write_atomically_keeps_the_old_file_on_failure(tmp_path, monkeypatch):
    path = tmp_path / "a"
    disk.write_atomically(path, b"old")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        disk.write_atomically(path, b"new")
    assert contents(tmp_path) == {"a": b"old"}


def test_second_save_leaves_no_old_pictures(tmp_path):
    save(tmp_path, sample_set(7))
    assert whole(save(tmp_path, sample_set(3)), sample_set(3))
    save(tmp_path, sample_set(0))
    assert set(contents(tmp_path)) == {"run.json", "samples.npz", "samples.csv"}
    assert not (tmp_path / "images").exists()


def test_a_run_of_a_former_version_is_replaced_whole(tmp_path):
    run = json.loads((save(tmp_path, OLD) / "run.json").read_text())
    run["files"] = {k: v for k, v in run["files"].items() if "/" not in k} | {"images/": "0" * 64}
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert whole(save(tmp_path, NEW), NEW)


def test_large_files_have_a_second_directory(tmp_path, monkeypatch):
    """As beyond 4 GiB."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    path = save(tmp_path, NEW) / "samples.npz"
    monkeypatch.undo()
    assert b"PK\6\7" in path.read_bytes()[-42:] and whole(tmp_path, NEW)


# One writer.


def other_process(folder, code):
    """A process that runs `code` beside this one; what it printed."""
    root = str(Path(__file__).parent.parent)
    script = f"import sys; sys.path[:0] = [{root!r}]\nfrom inverse_set import results\n{code}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return done.stdout.decode()


def test_a_second_writer_is_refused_by_name(tmp_path):
    with results.claim(tmp_path) as place:
        code = (
            "try: results.claim(" + repr(str(tmp_path)) + ", True)\n"
            "except results.ResultsError as error: print(error.what, error.remedy, error.code)"
        )
        said = other_process(tmp_path, code)
        assert f"process {os.getpid()} on {socket.gethostname()}" in said and " since 20" in said
        assert said.strip().endswith("--out 2")
        error = refusal(results.claim, tmp_path)
        assert str(os.getpid()) in error.what
        assert str(os.getpid()) in refusal(save, tmp_path).what
        save(place, NEW)
        assert str(os.getpid()) in refusal(results.claim, tmp_path, True).what
    assert whole(tmp_path, NEW) and not (tmp_path / OURS).exists()


def test_an_old_run_can_be_read_while_a_new_one_is_made(tmp_path):
    save(tmp_path, OLD)
    with results.claim(tmp_path, overwrite=True):
        assert state(tmp_path) == "old"


def test_a_lock_ends_with_its_process(tmp_path):
    root = str(Path(__file__).parent.parent)
    script = (
        f"import os, sys; sys.path[:0] = [{root!r}]\n"
        "from inverse_set import results\n"
        f"results.claim({str(tmp_path)!r})\n"
        "print(os.getpid(), flush=True)\n"
        "os._exit(9)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120)
    assert done.returncode == 9
    holder = json.loads((tmp_path / OURS / "lock").read_text())
    assert holder["pid"] == int(done.stdout)
    assert whole(save(tmp_path, NEW), NEW)


def held_by(folder, **changes):
    """Leaves a lock in `folder` as this process would, but for what `changes` say."""
    path = folder / OURS / "lock"
    path.parent.mkdir()
    path.write_text(json.dumps(lock._self() | changes))
    return path


def without_flock(monkeypatch):
    """Locking as on a file system that has none."""
    monkeypatch.setattr(lock.fcntl, "flock", lambda *_: fail(errno.ENOTSUP))


def test_a_lock_of_another_machine_is_respected(tmp_path, monkeypatch):
    path = held_by(tmp_path, host="node\x1b[17", pid=4)
    for _ in range(2):
        error = refusal(results.claim, tmp_path)
        assert "process 4 on node\\x1b[17" in error.what and f"delete {path}" in error.remedy
        without_flock(monkeypatch)
    path.unlink()
    assert whole(save(tmp_path, NEW), NEW)


@pytest.mark.parametrize(
    ("changes", "dead"),
    [
        ({}, False),
        ({"started": "another boot 1"}, True),
        ({"pid": 2**22 + 1}, True),
        ({"pid": "x"}, True),
        ({"started": None}, False),
    ],
)
def test_without_kernel_locks_the_process_named_decides(tmp_path, monkeypatch, changes, dead):
    without_flock(monkeypatch)
    held_by(tmp_path, **changes)
    if dead:
        assert whole(save(tmp_path, NEW), NEW)
    else:
        assert "has been writing" in refusal(results.claim, tmp_path).what


def test_without_kernel_locks_an_unreadable_lock_is_respected(tmp_path, monkeypatch):
    without_flock(monkeypatch)
    held_by(tmp_path).write_text("{")
    assert "another process" in refusal(results.claim, tmp_path).what


def test_a_lock_that_was_taken_away_saves_nothing(tmp_path):
    """Nobody can take it but by deleting it, or where there are no locks, in a race."""
    save(tmp_path, OLD)
    place = results.claim(tmp_path, overwrite=True)
    (tmp_path / OURS / "lock").unlink()
    with results.claim(tmp_path, overwrite=True) as other:
        assert "taken away" in refusal(save, place, NEW).what
        place.release()
        save(other, NEW)
    assert whole(tmp_path, NEW)


# What belongs to others.


def test_claim_refuses_what_is_there_and_loses_nothing(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    save(tmp_path / "run")
    before = contents(tmp_path)
    assert "already holds another run" in refusal(results.claim, tmp_path / "run").what
    assert "is not empty" in refusal(results.claim, tmp_path / "other").what
    assert "--overwrite" in refusal(results.claim, tmp_path / "other").remedy
    assert contents(tmp_path) == before


def test_claim_leaves_a_fresh_folder_empty(tmp_path):
    for _ in range(2):
        with results.claim(tmp_path / "new") as place:
            assert [path.name for path in place.folder.iterdir()] == [OURS]
        assert not list((tmp_path / "new").iterdir())


def test_overwrite_replaces_a_run_and_keeps_the_rest(tmp_path):
    foreign = {"notes.txt": b"1", "images/cat.txt": b"2", "grid.png.tmp-0123456789ab": b"3"}
    save(tmp_path, OLD)
    for name, data in foreign.items():
        (tmp_path / name).write_bytes(data)
    save(tmp_path, NEW)
    found = contents(tmp_path)
    assert {name: found.pop(name) for name in foreign} == foreign
    assert found == contents(save(tmp_path.with_name("alone"), NEW))
    save(tmp_path, sample_set(0))
    assert foreign.items() <= contents(tmp_path).items()


PICTURES = ["images/00001.png", "images/00009.png", "images/cat.PNG"]
NEVER_A_RUN = [(name, False) for name in [*results.FILES, "run.json", *PICTURES]]
NOT_LISTED = [(name, True) for name in [*results.FILES[2:], *PICTURES]]


@pytest.mark.parametrize(("name", "finished"), [*NEVER_A_RUN, *NOT_LISTED])
def test_overwrite_takes_no_stranger_for_a_run(tmp_path, name, finished):
    """Neither in a folder that never was a run, nor beside a run that does not list the file."""
    if finished:
        save(tmp_path, sample_set(0))
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"mine")
    before = contents(tmp_path)
    error = refusal(results.claim, tmp_path, True)
    assert name in error.what and "--out" in error.remedy
    assert name in refusal(save, tmp_path).what
    assert contents(tmp_path) == before


def test_a_stranger_that_comes_while_a_run_is_made_costs_neither(tmp_path):
    with results.claim(tmp_path) as place:
        (tmp_path / "grid.png").write_bytes(b"mine")
        with pytest.raises(ResultsError, match=r"grid\.png is not a file of a run"):
            save(place, NEW)
    assert (tmp_path / "grid.png").read_bytes() == b"mine"
    assert "grid.png" in refusal(results.load, tmp_path).what
    (tmp_path / "grid.png").unlink()
    assert whole(tmp_path, NEW)


def test_overwrite_does_not_reach_through_a_link(tmp_path):
    for name in ("images", OURS):
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        (tmp_path / "elsewhere" / "00000.png").write_bytes(b"mine")
        (tmp_path / name).mkdir()
        (tmp_path / name / name).symlink_to(tmp_path / "elsewhere")
        assert name in refusal(results.claim, tmp_path / name, True).what
        assert (tmp_path / "elsewhere" / "00000.png").read_bytes() == b"mine"
        assert len(contents(tmp_path / "elsewhere")) == 1


def test_claim_of_an_unusable_place(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    assert "is a file" in refusal(results.claim, tmp_path / "file").what
    refusal(results.claim, tmp_path / "file" / "below")
    for name in ("grid.png", "run.json"):
        (tmp_path / name / name).mkdir(parents=True)
        assert "is a folder" in refusal(results.claim, tmp_path / name, True).what
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "images").write_text("")
    assert "not a folder" in refusal(results.claim, tmp_path / "images", True).what
    save(tmp_path / "old")
    before = contents(tmp_path / "old")
    monkeypatch.setattr(lock.os, "open", lambda *_: fail(errno.EACCES))
    assert "Permission denied" in refusal(results.claim, tmp_path / "new").what
    assert "Permission denied" in refusal(results.claim, tmp_path / "old", True).what
    monkeypatch.undo()
    assert contents(tmp_path / "old") == before


def test_a_ready_run_that_is_damaged_removes_nothing(tmp_path):
    save(tmp_path, OLD)
    ready = save(tmp_path / OURS / "ready", NEW)
    (ready / "run.json").write_text("{")
    before = contents(tmp_path)
    assert f"delete {ready}" in refusal(results.load, tmp_path).remedy
    assert contents(tmp_path) == before


@pytest.mark.parametrize("linked", ["ready", "images"])
def test_nothing_is_moved_out_of_a_folder_that_a_link_leads_to(tmp_path, linked):
    victim, ours = save(tmp_path / "victim", NEW), tmp_path / "run" / OURS
    before = sorted(victim.rglob("*"))
    if linked == "ready":
        ours.mkdir(parents=True)
        (ours / "ready").symlink_to(victim)
    else:
        ready = save(ours / "ready", NEW)
        shutil.rmtree(ready / "images")
        (ready / "images").symlink_to(victim / "images")
    refusal(results.load, tmp_path / "run")
    assert sorted(victim.rglob("*")) == before
