"""Requests to stop: at once while nothing is found, politely afterwards."""

import signal
import subprocess
import sys
import time

import pytest

from inverse_set.commands import progress, signals

BOTH = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@BOTH
def test_a_signal_is_asked_politely_where_something_was_found(number):
    before = signal.getsignal(number)
    with signals.polite() as stop:
        assert not stop.asked
        signal.raise_signal(number)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)  # the second one is meant
    assert signal.getsignal(number) is before


@BOTH
def test_a_signal_interrupts_at_once_where_nothing_was_found(number):
    with pytest.raises(KeyboardInterrupt), signals.polite(early=True):
        signal.raise_signal(number)
    with signals.polite(early=True) as stop:
        stop.early = False
        signal.raise_signal(number)
        assert stop.asked


@BOTH
def test_a_second_signal_does_not_break_off_what_the_first_cleans_up(number):
    with signals.polite(early=True) as stop:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        signal.raise_signal(number)
        assert stop.asked


LEAVING = """
import atexit, os, signal, sys
from inverse_set import cli
cli.run = lambda arguments: 75
atexit.register(os.kill, os.getpid(), signal.{name})
cli.main()
"""


@BOTH
def test_a_signal_to_a_process_that_is_leaving_keeps_its_exit_code(number):
    command = [sys.executable, "-c", LEAVING.format(name=number.name)]
    left = subprocess.run(command, capture_output=True, text=True)
    assert (left.returncode, left.stdout, left.stderr) == (75, "", "")


BUSY = """
import hashlib
from inverse_set.commands import signals
with signals.polite(early={early}):
    print("busy", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", {rounds})
    print("done", flush=True)
"""


def busy(early, rounds):
    """A process whose main thread is inside compiled code, as in a compilation, after SIGTERM:
    (exit code, what it says on both streams, seconds)."""
    command = [sys.executable, "-c", BUSY.format(early=early, rounds=rounds)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == "busy\n"
        time.sleep(0.5)  # it has said so before it begins
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        out, said = process.communicate(timeout=120)
        return process.returncode, out, said, time.monotonic() - began


def test_compiled_code_is_left_within_two_seconds():
    code, out, said, seconds = busy(early=True, rounds=2**31 - 1)  # an hour of it
    assert (code, out) == (75, "") and said.splitlines() == signals.SAID.splitlines()
    assert seconds < 10  # 1.5, and what a busy machine adds


def test_compiled_code_is_not_left_where_something_was_found():
    code, out, said, _ = busy(early=False, rounds=8 * 10**6)
    assert (code, out, said) == (0, "done\n", "")


def test_reports_tell_what_is_early_and_ask_to_stop(capsys):
    with progress.reporting(early=("start",)) as report:
        assert not report("start", 0, 1, "codes")
        assert not report("seeds", 1, 9, "2 of 4 inside")
        signal.raise_signal(signal.SIGTERM)
        assert report("seeds", 2, 9, "3 of 4 inside")
        assert report("certificate", 0, 4, "pictures")
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "start: 0 of 1, codes" and said[1] == "seeds: 1 of 9, 2 of 4 inside"
    assert said[2].endswith(f"; {progress.STOPPING}")
    assert said[3] == "certificate: 0 of 4, pictures"
    with pytest.raises(KeyboardInterrupt), progress.reporting(early=("start",)) as report:
        report("start", 0, 1, "codes")
        signal.raise_signal(signal.SIGTERM)


def test_a_log_has_a_line_every_few_seconds(capsys, monkeypatch):
    monkeypatch.setattr(progress.time, "perf_counter", iter([0.0, 1.0, 4.9, 5.0, 5.1]).__next__)
    show = progress._lines()
    for done in range(1, 6):
        show("samples", done, 5, "", False)
    assert [line[9] for line in capsys.readouterr().err.splitlines()] == ["1", "4", "5"]
