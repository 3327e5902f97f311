"""Damages weight files at random and reads them: what is not read must be refused, and soon.

    python -m tests.convert.mutate --format=caffemodel --cases=20000

A case fails if the reader raises anything but WeightError, takes longer than 2 s, or makes the
process grow by more than twice the file + 256 MiB.  The file is then kept and its path printed.
"""

import argparse
import atexit
import collections
import random
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from inverse_set.convert import arrays as plain_files
from inverse_set.convert import caffemodel, matconvnet, torch_file
from inverse_set.convert.isolated import Child
from inverse_set.errors import WeightError
from tests.convert import caffe_files, other_files

MAX_SECONDS, STUCK_SECONDS = 2, 20
MAX_GROWTH = 256 << 20  # bytes, over twice the file


class Stuck(BaseException):
    """A case that would not end; no Exception, so that no reader swallows it."""


# A format is (folder -> path of a small valid file, path -> reads all of it).


def caffe(**how):
    """A small network with every kind of layer that holds weights, in one layout."""

    def make(folder):
        values = np.random.default_rng(0).normal
        layers = [
            ("data", "data", []),
            ("conv1", "convolution", [values(size=(2, 3, 2, 2)), values(size=2)]),
            ("relu1", "relu", []),
            ("fc6", "inner_product", [values(size=(3, 4)), values(size=3)]),
        ]
        return caffe_files.write(folder / "net.caffemodel", layers, **how)

    return make


def mean(folder):
    return caffe_files.write_mean(folder / "mean.binaryproto", np.ones((3, 2, 2)))


def read_caffe(path):
    weights = caffemodel.read(path)
    for name, layer in weights.items():
        weights.check_finite(name)
        for array in layer:
            array.tobytes()
        weights.release(name)


def plain(kind, **how):
    """Arrays by name, in one of the formats of `other_files`."""
    named = other_files.named(other_files.weights())
    return lambda folder: getattr(other_files, kind)(folder / f"net.{kind}", named, **how)


def plain_mean(folder):
    (folder / "mean.npy").write_bytes(other_files.npy_bytes(np.ones((3, 2, 2))))
    return folder / "mean.npy"


def mat(**how):
    mean = np.ones((1, 1, 3))
    return lambda folder: other_files.mat(folder / "net.mat", other_files.weights(), mean, **how)


def pt(**how):
    layers = other_files.generator_weights(("defc7", "defc6", "defc5", "deconv5"))
    return lambda folder: other_files.pt(folder / "net.pt", layers, **how)


def isolated(read, kind):
    """`read` with one child process for all cases; only a crash costs the start of another."""
    child = Child(kind)
    atexit.register(child.close)
    return lambda path: read(path, child)


FORMATS = {
    "caffemodel": (caffe(layout="v1"), read_caffe),
    "caffemodel-v0": (caffe(layout="v0", packed=False), read_caffe),
    "caffemodel-v2": (caffe(layout="v2"), read_caffe),
    "caffemodel-double": (caffe(layout="v2", packed=False, double=True), read_caffe),
    "caffemodel-half": (caffe(layout="v2", raw="<f2"), read_caffe),
    "binaryproto": (mean, caffemodel.read_mean),
    "npz": (plain("npz"), plain_files.read_npz),
    "npz-deflated": (plain("npz", method=8), plain_files.read_npz),
    "npy": (plain_mean, plain_files.read_mean),
    "safetensors": (plain("safetensors"), plain_files.read_safetensors),
    "mat": (mat(), isolated(matconvnet.read, "mat")),
    "mat-plain": (mat(old=True, compressed=False), isolated(matconvnet.read, "mat")),
    "torch": (pt(), isolated(torch_file.read, "torch")),
    "torch-legacy": (pt(legacy=True), isolated(torch_file.read, "torch")),
}


def truncate(draw, data):
    del data[draw.randrange(len(data) + 1) :]


def flip_bits(draw, data):
    for _ in range(draw.choice((1, 1, 2, 8))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def overwrite(draw, data):
    start, count = piece(draw, data)
    byte = draw.choice((0, 0x7F, 0x80, 0xFF, None))
    data[start : start + count] = draw.randbytes(count) if byte is None else bytes([byte]) * count


def splice(draw, data):
    start, _ = piece(draw, data)
    data[draw.randrange(len(data) + 1) :] = data[start:]


def duplicate(draw, data):
    start, count = piece(draw, data)
    at = draw.randrange(len(data) + 1)
    data[at:at] = data[start : start + count] * draw.choice((1, 1, 2, 50))


def delete(draw, data):
    start, count = piece(draw, data)
    del data[start : start + count]


def forge_varint(draw, data):
    at = draw.randrange(len(data))
    forged = caffe_files.varint(number(draw))
    if draw.random() < 0.1:
        forged = b"\xff" * draw.randrange(1, 12) + forged
    data[at : at + draw.choice((0, 1, len(forged)))] = forged


def forge_integer(draw, data):
    at, size = draw.randrange(len(data)), draw.choice((2, 4, 8))
    order = draw.choice(("little", "big"))
    data[at : at + size] = (number(draw) % (1 << 8 * size)).to_bytes(size, order)


def forge_digits(draw, data):
    """A decimal number in place of the digits of one, as in the headers of some formats."""
    digits = [i for i, byte in enumerate(data) if 0x30 <= byte <= 0x39]
    if digits:
        start = end = draw.choice(digits)
        while end < len(data) and 0x30 <= data[end] <= 0x39:
            end += 1
        data[start:end] = str(number(draw)).encode()


def nest(draw, data):
    """Wraps a piece in message after message, or in opening brackets."""
    start, count = piece(draw, data)
    inner = bytes(data[start : start + count])
    depth = draw.choice((3, 100, 2000))
    if draw.random() < 0.2:
        inner = draw.choice((b"[", b"{", b'{"a":', b"(")) * depth + inner
    else:
        tag = bytes([draw.choice((1, 2, 6, 7, 10)) << 3 | 2])
        for _ in range(depth):
            inner = tag + caffe_files.varint(len(inner)) + inner
    data[start : start + count] = inner


MUTATIONS = (
    truncate,
    flip_bits,
    overwrite,
    splice,
    duplicate,
    delete,
    forge_varint,
    forge_integer,
    forge_digits,
    nest,
)


def piece(draw, data):
    """`(start, count)` of some bytes, more often few than many."""
    start = draw.randrange(len(data))
    return start, draw.randint(1, min(len(data) - start, draw.choice((1, 4, 16, 64, 1 << 20))))


def number(draw):
    """A number that a length or a size may be forged to: near a power of two, or small."""
    return max(0, (1 << draw.randrange(65)) + draw.choice((-1, 0, 1, draw.randrange(300))))


def mutated(draw, valid):
    """Bytes like `valid`, damaged once to three times."""
    data = bytearray(valid)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        if data:
            draw.choice(MUTATIONS)(draw, data)
    return bytes(data)


def run(name, cases, seed=0, keep=None):
    """Reads `cases` damaged files of a format; `(report, failures)`, both lists of lines.

    keep: folder for files that fail; a temporary one is made if there are any and it is None.
    """
    make, read = FORMATS[name]
    draw, counts, failures, slowest, growth = (
        random.Random(seed),
        collections.Counter(),
        [],
        (0,),
        0,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = make(Path(folder))
        valid = path.read_bytes()
        read(path)
        before = peak()
        for case in range(cases):
            data = mutated(draw, valid)
            path.unlink()
            path.write_bytes(data)
            outcome, seconds = attempt(read, path)
            counts[outcome] += 1
            slowest, grown = max(slowest, (seconds, case)), peak() - before
            growth = max(growth, grown)
            if seconds > MAX_SECONDS:
                outcome = f"{outcome} after {seconds:.1f} s"
            if grown > 2 * len(data) + MAX_GROWTH:
                outcome = f"{outcome}, grown by {grown >> 20} MiB"
            if outcome not in ("read", "refused"):
                keep = Path(keep or tempfile.mkdtemp(prefix="mutate-"))
                kept = keep / f"{seed}-{case}-{path.name}"
                kept.write_bytes(data)
                failures.append(f"case {case}: {outcome}: {kept}")
                before = peak()  # the peak never falls; the next case is not to blame
    report = [f"{outcome}: {count}" for outcome, count in counts.most_common()]
    report.append(f"slowest: case {slowest[-1]}, {1000 * slowest[0]:.1f} ms")
    report.append(f"memory grew by {growth / (1 << 20):.1f} MiB at most")
    return report, failures


def attempt(read, path):
    """`(outcome, seconds)`: "read", "refused", or what went wrong."""
    before = signal.signal(signal.SIGALRM, stuck)
    signal.setitimer(signal.ITIMER_REAL, STUCK_SECONDS)
    start = time.perf_counter()
    try:
        read(path)
        outcome = "read"
    except WeightError:
        outcome = "refused"
    except (Exception, Stuck) as error:
        outcome = type(error).__name__
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return outcome, time.perf_counter() - start


def peak():
    """Most memory the process ever had, bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def stuck(signum, frame):
    raise Stuck


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--cases", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    start = time.perf_counter()
    report, failures = run(args.format, args.cases, args.seed)
    seconds = time.perf_counter() - start
    print(f"{args.format}: {args.cases} cases, seed {args.seed}, {seconds:.1f} s")
    print("\n".join([*report, *failures]))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
