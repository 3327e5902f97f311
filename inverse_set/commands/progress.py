"""Progress: a bar on a terminal, plain log lines otherwise; and a polite stop on a signal."""

import contextlib
import signal
import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@contextlib.contextmanager
def reporting():
    """Yields a progress callback for `run.sample`.

    SIGINT or SIGTERM makes it return True: the run ends at the next chunk and keeps what it has.
    A second SIGINT interrupts at once.
    """
    asked = []

    def stop(number, frame):
        asked.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        if sys.stderr.isatty():
            with _bar() as bar:
                yield lambda *report: bar(*report) or bool(asked)
        else:
            yield lambda *report: _line(*report) or bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _line(phase, done, total, note):
    print(f"{phase}: {done} of {total}, {note}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _bar():
    columns = (
        TextColumn("{task.description:>8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks = {}

        def update(phase, done, total, note):
            if phase not in tasks:
                tasks[phase] = progress.add_task(phase, total=total, note=note)
            progress.update(tasks[phase], completed=done, note=note)

        yield update
