"""Temporary files of killed writers, and the lock that tells them from those of living ones."""

import os
import signal
import subprocess
import sys

import pytest

from inverse_set import disk

WRITER = """
import sys
from pathlib import Path
from inverse_set import disk
with disk.replacing(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writer(tmp_path):
    """A process in the midst of writing `net`; ended afterwards."""
    command = [sys.executable, "-c", WRITER, tmp_path / "net"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        yield process
        process.kill()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_killed_writer_leaves_a_file_that_is_removed(tmp_path, writer):
    (tmp_path / "net").write_bytes(b"old")
    disk.remove_leftovers(tmp_path / "net")
    assert len(names(tmp_path)) == 2  # its writer lives
    writer.kill()
    writer.wait()
    assert len(names(tmp_path)) == 2
    disk.remove_leftovers(tmp_path / "other")
    assert len(names(tmp_path)) == 2
    disk.remove_leftovers(tmp_path / "net")
    assert names(tmp_path) == ["net"] and (tmp_path / "net").read_bytes() == b"old"


def test_a_living_writer_is_not_disturbed(tmp_path, writer):
    disk.remove_leftovers(tmp_path / "net")
    writer.communicate("")
    assert writer.returncode == 0
    assert names(tmp_path) == ["net"] and (tmp_path / "net").read_bytes() == b"half"


def test_only_our_own_names_are_removed(tmp_path):
    kept = ["net", "net.tmp-", "net.tmp-0123456789a", "net.tmp-0123456789abc", "net.tmp-notes",
            "net.tmp-0123456789AB", "xnet.tmp-0123456789ab"]  # fmt: skip
    for name in [*kept, "net.tmp-0123456789ab"]:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "net.tmp-000000000000").mkdir()
    os.mkfifo(tmp_path / "net.tmp-111111111111")
    disk.remove_leftovers(tmp_path / "net")
    assert names(tmp_path) == sorted([*kept, "net.tmp-000000000000", "net.tmp-111111111111"])
    disk.remove_leftovers(tmp_path / "no" / "such" / "folder")


def test_a_file_taken_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    """The other command looks between the writer's two calls."""
    lock, looked = disk._lock, []

    def late(file, wait=False):
        if wait and not looked:
            looked.append(file)
            disk.remove_leftovers(tmp_path / "net")
            assert names(tmp_path) == []
        return lock(file, wait)

    monkeypatch.setattr(disk, "_lock", late)
    disk.write_atomically(tmp_path / "net", b"whole")
    assert looked and (tmp_path / "net").read_bytes() == b"whole"


def test_one_process_at_a_time(tmp_path):
    path = tmp_path / "lock"
    with disk.alone(path):
        with pytest.raises(BlockingIOError), disk.alone(path):
            pass
        assert path.exists()
    assert names(tmp_path) == []
    with pytest.raises(KeyError), disk.alone(path):
        raise KeyError
    assert names(tmp_path) == []


def test_a_killed_holder_gives_its_lock_up(tmp_path):
    code = "import os, sys, pathlib; from inverse_set import disk\n"
    code += f"with disk.alone(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), {signal.SIGKILL})"
    path = tmp_path / "lock"
    assert subprocess.run([sys.executable, "-c", code, path]).returncode == -signal.SIGKILL
    assert path.exists()
    with disk.alone(path):
        pass
    assert names(tmp_path) == []
