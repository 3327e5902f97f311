"""SIGINT and SIGTERM, for commands that keep nothing half done."""

import contextlib
import signal


@contextlib.contextmanager
def interrupting():
    """Either signal raises KeyboardInterrupt at once, so that temporary files are deleted."""

    def stop(number, frame):
        raise KeyboardInterrupt

    before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
