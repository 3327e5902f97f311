"""The command where nobody listens, where not every letter can be said, and interrupted early."""

import os
import signal
import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-m", "inverse_set"]


def child(arguments, **more):
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, timeout=120, **more)
    assert b"Traceback" not in done.stderr and b"Exception" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_what_an_encoding_cannot_say_is_escaped(encoding, tmp_path):
    """Names with letters of any kind, and the byte that is no letter at all."""
    folder = tmp_path / "Bilder-写真"
    done = child(["verify", str(folder)], env=os.environ | {"PYTHONIOENCODING": encoding})
    assert done.returncode == 2 and b"\\u5199\\u771f is not a finished run" in done.stderr
    assert done.stderr.count(b"\n") == 2
    done = child(["verify", os.fsencode(tmp_path) + b"/\xff"])
    assert done.returncode == 2 and b"\\udcff" in done.stderr


CLOSED = (
    "import os, sys; [os.close(int(n)) for n in sys.argv[1]]; os.execv(sys.argv[2], sys.argv[2:])"
)


@pytest.mark.parametrize("descriptors", ["1", "2", "12", "012"])
@pytest.mark.parametrize(("arguments", "code"), [(["models"], 0), (["units", "--layer=no"], 2)])
def test_closed_streams(descriptors, arguments, code):
    command = [sys.executable, "-c", CLOSED, descriptors, *COMMAND, *arguments]
    done = subprocess.run(command, capture_output=True, timeout=120)
    assert done.returncode == code
    assert b"Traceback" not in done.stderr and b"Error" not in done.stderr, done.stderr
    assert bool(done.stdout) == (code == 0 and "1" not in descriptors)
    assert done.stderr.count(b"\n") == (2 if code and "2" not in descriptors else 0)


def test_a_reader_that_goes_away_ends_nothing():
    """As `inverse-set units | head -n 1`: the work was done, so the code is that of the work."""
    read, write = os.pipe()
    os.close(read)
    for arguments, code in ((["models"], 0), (["units", "--layer=no"], 2)):
        for name in ("stdout", "stderr"):
            both = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | {name: write}
            done = subprocess.run([*COMMAND, *arguments], **both, timeout=120)
            assert done.returncode == code and b"Traceback" not in (done.stderr or b"")
    os.close(write)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_full_disk_behind_standard_output_is_said():
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, "--help"], stdout=full, stderr=subprocess.PIPE, timeout=120
        )
    assert done.returncode == 2 and done.stderr.count(b"\n") == 2 and b"No space" in done.stderr


SLOW = """
import importlib.abc, signal, sys
for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background jobs inherit SIGINT ignored
    signal.signal(number, signal.SIG_DFL)
class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "jax":
            signal.raise_signal(int(sys.argv.pop()))
sys.meta_path.insert(0, Slow())
import runpy
runpy.run_module("inverse_set", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_modules_are_imported(number):
    """Raised when JAX's import begins, the first and longest of all."""
    command = [sys.executable, "-c", SLOW, "units", str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 75 and not done.stdout
    what, remedy = done.stderr.splitlines()
    assert what.startswith("inverse-set: interrupted") and remedy.startswith("  ")


def test_devices_that_are_not_here():
    done = child(["units"], env=os.environ | {"JAX_PLATFORMS": "rocm"}, text=False)
    assert done.returncode == 2
    *_, what, remedy = done.stderr.decode().splitlines()
    assert what == "inverse-set: JAX has no device of JAX_PLATFORMS=rocm"
    assert remedy == "  unset it or install jax[cuda]"
