"""Progress: a bar on a terminal, plain log lines otherwise; and a polite stop on a signal."""

import contextlib
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from inverse_set.commands import signals
from inverse_set.errors import shown

STOPPING = "stopping: what was found is certified and saved; a second Ctrl-C saves nothing"
EVERY = 5.0  # seconds between two lines of one phase


@contextlib.contextmanager
def reporting(early=()):
    """Yields a progress callback for `run.sample`.

    SIGINT or SIGTERM makes it return True: the run ends at the next chunk and keeps what it has.
    early: phases in which there is nothing to keep, so that a signal interrupts at once, and so
        does one before the first report.  A second SIGINT interrupts at once in every phase.
    """
    with signals.polite(early=bool(early)) as stop, _shown() as show:
        told = False

        def report(phase, done, total, note):
            nonlocal told
            stop.early = phase in early
            if stop.asked and not told:
                told, note = True, f"{note}; {STOPPING}"
            show(phase, done, total, shown(note), told)
            return stop.asked

        yield report


@contextlib.contextmanager
def _shown():
    if sys.stderr is not None and sys.stderr.isatty():
        with _bar() as bar:
            yield bar
    else:
        yield _lines()


def _lines():
    """Lines for a log: one as a phase begins and ends, and every few seconds in between."""
    last = (None, 0.0)

    def show(phase, done, total, note, stopping):
        nonlocal last
        now = time.perf_counter()
        if phase == last[0] and done < total and now - last[1] < EVERY and not stopping:
            return
        last = phase, now
        print(f"{phase}: {done} of {total}, {note}", file=sys.stderr, flush=True)

    return show


@contextlib.contextmanager
def _bar():
    columns = (
        TextColumn("{task.description:>11}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks = {}

        def update(phase, done, total, note, stopping):
            if phase not in tasks:
                tasks[phase] = progress.add_task(phase, total=total, note=note)
            progress.update(tasks[phase], completed=done, note=note)

        yield update
