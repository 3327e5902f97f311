"""SIGINT and SIGTERM: at once where nothing would be lost, politely where something would."""

import contextlib
import os
import signal
import socket
import sys
import threading

from inverse_set.errors import INTERRUPTED

PATIENCE = 1.5  # seconds in which Python has to get out of a compilation by itself
SAID = "inverse-set: interrupted before anything was found\n  run the same command again"


@contextlib.contextmanager
def interrupting():
    """Either signal raises KeyboardInterrupt at once, so that temporary files are deleted."""
    with _handled(_interrupt):
        yield


class Stop:
    """A request to stop: `asked` is True once there was a signal.

    early: nothing has been found yet, so that a signal ends the command at once.
    """

    def __init__(self, early):
        self.asked, self.early = False, early


@contextlib.contextmanager
def polite(early=False):
    """Yields a `Stop`.  A signal sets `asked`; a second SIGINT interrupts at once.

    While the stop is `early` the signal raises KeyboardInterrupt.  Python runs no handler while the
    main thread is inside a compilation, which takes many seconds; a second thread then waits for
    `PATIENCE` and ends the process.  Locks die with it, and temporary files are known by them.
    """
    stop = Stop(early)

    def handle(number, frame):
        first, stop.asked = not stop.asked, True
        if not stop.early:
            signal.signal(signal.SIGINT, _interrupt)
        elif first:  # a second one would break off what the first one cleans up
            raise KeyboardInterrupt

    with _handled(handle), _watched(stop):
        yield stop


def _interrupt(number, frame):
    raise KeyboardInterrupt


@contextlib.contextmanager
def _handled(handle):
    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _watched(stop):
    """A thread that learns of signals even while the main thread is inside compiled code."""
    ours, interpreters = socket.socketpair()
    interpreters.setblocking(False)
    left = threading.Event()

    def watch():
        while ours.recv(1):
            if stop.early and not left.wait(PATIENCE) and stop.early:
                with contextlib.suppress(OSError, ValueError, AttributeError):
                    print(SAID, file=sys.stderr, flush=True)
                os._exit(INTERRUPTED)

    before = signal.set_wakeup_fd(interpreters.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(before)
        interpreters.close()  # ends the thread
        thread.join()
        ours.close()
