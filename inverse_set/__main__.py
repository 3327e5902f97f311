"""The command `inverse-set`, `python -m inverse_set`: ready for signals before it imports much."""

import os
import signal
import sys

INTERRUPTED = 75  # as in errors.py
SAID = b"inverse-set: interrupted before anything was done\n  run the same command again\n"


def _quit(number, frame):
    """Ends the process: nothing has been begun, and a half imported library cannot be left."""
    try:
        os.write(2, SAID)
    finally:
        os._exit(INTERRUPTED)


def main():
    """The console script."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _quit)
    from inverse_set import cli

    cli.main()


if __name__ == "__main__":
    sys.exit(main())
