"""Training state on disk: one file a stage, replaced as a whole, so that a kill loses nothing."""

import os
import time

from flax import serialization


def save(path, state):
    temporary = path.with_suffix(".tmp")
    with open(temporary, "wb") as file:
        file.write(serialization.to_bytes(state))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def restore(path, state):
    """The stored state, shaped like `state`; `state` itself where nothing is stored."""
    if not path.exists():
        return state
    return serialization.from_bytes(state, path.read_bytes())


class Log:
    """Prints a line of numbers and appends it to `path`."""

    def __init__(self, path):
        self.path, self.start = path, time.monotonic()

    def __call__(self, step, **numbers):
        parts = [f"step {step:6d}", f"{time.monotonic() - self.start:7.0f} s"]
        parts += [f"{name} {float(value):.4f}" for name, value in numbers.items()]
        line = "  ".join(parts)
        print(line, flush=True)
        with open(self.path, "a") as file:
            file.write(line + "\n")
