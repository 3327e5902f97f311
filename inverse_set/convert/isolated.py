"""Reads a file in a child process, which may crash, swell or hang without harm to this one.

scipy's reader of .mat files dies on some damaged files, and torch unpickles: neither runs here.
The child gets a limit on memory and on time, which count from when it has imported its library;
what it hands back is JSON and plain numbers, and even these are checked.
"""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from inverse_set.convert.files import most_bytes, one_line, regular_size
from inverse_set.errors import WeightError

MEMORY = 256 << 20
MAX_REPLY = 4 << 20
STARTUP = 300.0  # seconds: importing torch from a slow disk on a busy machine
_PICKLED = (
    "if you trust the file, load it in PyTorch with the program that made it, and save the weights "
    "alone: torch.save(model.state_dict(), 'weights.pt')"
)
_LIBRARIES = {"mat": "scipy", "torch": "torch"}
_REMEDIES = {
    "scipy": "install scipy>=1.13 into the same environment",
    "torch": "install torch>=2.6 into the same environment",
}


class Child:
    """A process that reads files of one kind, "mat" or "torch"; use it in a `with` statement.

    It starts with the first file and again after a crash, so one Child can try many files.
    """

    def __init__(self, kind):
        self.kind, self.process = kind, None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends the process, if there is one; returns its exit status."""
        process, self.process = self.process, None
        if process is None:
            return None
        process.kill()
        with process.stdout, process.stdin:
            return process.wait()

    def read(self, path, seconds=None, memory=None):
        """`{name: float32 array}` of the file, in the file's own names and layout.

        seconds: most time it may take, by default 20 and 1 for every 20 MB.
        memory: most bytes the child may take above what its libraries do, by default twice the
            file and 256 MiB.
        Raises WeightError with the reason: also for a crash, and for either limit.
        """
        size = regular_size(path)
        seconds = 20 + size / 20e6 if seconds is None else seconds
        memory = 2 * size + MEMORY if memory is None else memory
        request = {"path": os.path.abspath(path), "most": most_bytes(size)}
        request |= {"memory": memory, "seconds": math.ceil(seconds)}
        if self.process is None or self.process.poll() is not None:
            self._start(path)
        with self._limited(path, "reading", seconds):
            reply = self._ask(request)
            if "arrays" in reply:
                return self._receive(reply["arrays"], most_bytes(size))
        raise _refusal(path, reply, memory)

    @contextlib.contextmanager
    def _limited(self, path, what, seconds):
        """Ends the process after `seconds`; turns its end, for any reason, into a WeightError."""
        deadline = time.monotonic() + seconds
        timer = threading.Timer(seconds, self.process.kill)
        timer.start()
        try:
            yield
        except (OSError, ValueError, TypeError, KeyError, EOFError, RecursionError) as error:
            status = self.close()
            if time.monotonic() < deadline:
                raise WeightError(path, _death(status)) from error
            remedy = "try again when the machine is less busy"
            wrong = f"{what} took longer than {seconds:g} s"
            raise WeightError(path, wrong, remedy=remedy) from error
        except BaseException:
            self.close()
            raise
        finally:
            timer.cancel()

    def _start(self, path):
        self.close()
        one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        # A script and not a module: the package would bring JAX along, over a second each time.
        command = [sys.executable, "-P", str(Path(__file__).with_name("child.py")), self.kind]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | one_thread,
        )
        with self._limited(path, f"importing {_LIBRARIES[self.kind]}", STARTUP):
            if self.process.stdout.readline(MAX_REPLY) != b"READY\n":
                raise EOFError("not ready")

    def _ask(self, request):
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        reply = json.loads(self.process.stdout.readline(MAX_REPLY) or "null")
        if not isinstance(reply, dict):
            raise EOFError("no reply")
        return reply

    def _receive(self, listed, most):
        """The arrays that follow a reply, which lists their names and shapes."""
        shapes = {}
        for name, shape in listed:
            if type(name) is not str or name in shapes or any(type(n) is not int for n in shape):
                raise ValueError("malformed reply")
            shapes[name] = tuple(shape)
        if any(n < 0 for shape in shapes.values() for n in shape):
            raise ValueError("malformed reply")
        if 4 * sum(map(math.prod, shapes.values())) > most:
            raise ValueError("the arrays are larger than asked for")
        arrays = {}
        for name, shape in shapes.items():
            arrays[name] = np.empty(shape, "<f4")
            view = memoryview(arrays[name].reshape(-1)).cast("B")
            if len(view) and self.process.stdout.readinto(view) != len(view):
                raise EOFError("too few numbers")
        return arrays


def _death(status):
    if status is not None and status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        return f"damaged: the library that reads it crashed ({name})"
    return "damaged: the process that reads it gave up"


def _refusal(path, reply, memory):
    """The WeightError that a reply without arrays stands for."""
    if (library := reply.get("missing")) in _REMEDIES:
        wrong = one_line(reply.get("wrong"))
        return WeightError(path, wrong, remedy=_REMEDIES[library])
    if reply.get("memory"):
        return WeightError(path, f"reading it takes more than {memory >> 20} MiB of memory")
    layer, offset = reply.get("layer"), reply.get("offset")
    layer = layer if layer is None else one_line(layer)
    remedy = _PICKLED if reply.get("pickled") else None
    return WeightError(path, one_line(reply.get("wrong")), layer, offset, remedy)
