"""The process that `isolated` starts: reads .mat or .pt files for it, one request a line.

A script of its own that imports nothing of this package.  It says READY once the library is
imported, and replies with one line of JSON that lists names and shapes and then the float32
numbers, or with one line that says what is wrong.
"""

import contextlib
import io
import json
import os
import re
import struct
import sys
import warnings
import zlib

import numpy as np

MATRIX, COMPRESSED = 14, 15  # data types of a .mat file's elements
CHUNK = 1 << 18
NUMBERS = "fiu"  # MATLAB stores floats that are whole numbers as integers
NETWORK = ("layers", "normalization", "meta")  # variables of a file, or fields of its `net`
MEANS = ("image_mean", "mean_data")  # Caffe's own: width and height in either order, BGR
ORDER = {"pool": 0, "normalize": 1, "lrn": 1}


class Refused(Exception):
    """What is wrong with a file, and which layer and byte it concerns, if known."""

    def __init__(self, wrong, layer=None, offset=None):
        super().__init__(wrong)
        self.reply = {"wrong": wrong, "layer": layer, "offset": offset}


class Missing(Exception):
    """A library that is not installed, or too old."""

    def __init__(self, wrong, library):
        super().__init__(wrong)
        self.reply = {"wrong": wrong, "missing": library}


def read_mat(path, most):
    """`{"layer/kernel": array, "layer/bias": array, "mean": array, "order": array}` of a file.

    That is of a MatConvNet network, of Caffe's mean picture, or of both.  Kernels come with their
    axes reversed, [out, in, width, height], which is how they lie in the file; the mean is [3],
    RGB; the order is of pooling (0) and normalisation (1).
    """
    from scipy.io import loadmat

    stream = inflated(path, most)
    wanted = [*NETWORK, "net", *MEANS]
    found = loadmat(stream, variable_names=wanted, struct_as_record=False)
    found = {name: found[name] for name in wanted if name in found}
    check_types(found.values())
    network = found if "layers" in found else fields(found.get("net"))
    arrays = network_arrays(network.get("layers"))
    if (image := mean_image(network or found, found)) is not None:
        arrays["mean"] = image
    if not arrays:
        from scipy.io import whosmat

        stream.seek(0)
        names = ", ".join(name for name, *_ in whosmat(stream)) or "none"
        raise Refused(
            f"there is no MatConvNet network in it: no cell array named layers, also not in a "
            f"struct named net; its variables: {names}"
        )
    return arrays


def network_arrays(layers):
    """Kernels, biases and order of the layers; `{}` if they are no cell array."""
    if not isinstance(layers, np.ndarray) or layers.dtype != object:
        return {}
    arrays, order = {}, []
    for number, item in enumerate(layers.flat, 1):
        layer = fields(item)
        for key, array in layer_arrays(layer, number).items():
            if key in arrays:
                raise Refused("two layers have this name", key.rpartition("/")[0])
            arrays[key] = array
        if (kind := text(layer.get("type"))) in ORDER:
            order.append(ORDER[kind])
    if not arrays:
        raise Refused("no layer of it has weights; DagNN files are not read, SimpleNN files are")
    return arrays | ({"order": np.array(order)} if order else {})


def mean_image(network, found):
    """The mean colour `[3]`, RGB, of a network's normalization or of Caffe's picture, or None."""
    normalization = fields(network.get("normalization"))
    normalization = normalization or fields(fields(network.get("meta")).get("normalization"))
    if (image := normalization.get("averageImage")) is not None and image.size:
        return mean_colour(image)
    for name in MEANS:
        if name in found:
            return mean_colour(found[name])[::-1]
    return None


def inflated(path, most):
    """The same .mat file with no element compressed, at most `most` bytes long."""
    out = io.BytesIO()
    with open(path, "rb") as file:
        out.write(file.read(128))
        while tag := file.read(8):
            offset = file.tell() - len(tag)
            kind, count = struct.unpack("<II", tag) if len(tag) == 8 else (MATRIX, 8)
            if kind not in (MATRIX, COMPRESSED) or not count:
                raise Refused("expected a variable", offset=offset)
            start = out.tell()
            pieces = chunks(file, count, offset)
            if kind == MATRIX:
                out.write(tag)
            else:
                pieces = inflate(pieces, offset)
            for piece in pieces:
                if out.tell() + len(piece) > most:
                    raise Refused(f"holds more than {most >> 20} MiB, too much for its size")
                out.write(piece)
            end_element(out, start, offset)
    out.seek(0)
    return out


def chunks(file, count, offset):
    while count:
        piece = file.read(min(count, CHUNK))
        if not piece:
            raise Refused("the file ends within this variable", offset=offset)
        count -= len(piece)
        yield piece


def inflate(pieces, offset):
    stream = zlib.decompressobj()
    try:
        for piece in pieces:
            while piece:
                yield stream.decompress(piece, CHUNK)
                piece = stream.unconsumed_tail
            if stream.unused_data:
                break
        while not stream.eof:  # zlib may hold back what has no input left to announce it
            piece = stream.decompress(b"", CHUNK)
            if not piece:
                raise Refused("a compressed variable ends too soon", offset=offset)
            yield piece
    except zlib.error as error:
        raise Refused(f"a variable does not inflate: {error}", offset=offset) from error


def end_element(out, start, offset):
    """Checks the variable written since `start`, and drops what follows it."""
    end = out.tell()
    out.seek(start)
    kind, count = struct.unpack("<II", out.read(8).ljust(8, b"\0"))
    if kind != MATRIX or start + 8 + count > end:
        raise Refused("expected a whole variable", offset=offset)
    out.seek(start + 8 + count)
    out.truncate()


def check_types(values):
    """Refuses whatever is not a number, a text, a cell or a struct, at any depth."""
    from scipy.io.matlab import MatlabFunction, MatlabObject, MatlabOpaque, mat_struct

    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if isinstance(value, MatlabFunction | MatlabObject | MatlabOpaque):
            raise Refused("holds an object or a function, a network's weights never do")
        if isinstance(value, mat_struct):
            waiting.extend(vars(value).get(name) for name in value._fieldnames)
        elif not isinstance(value, np.ndarray):
            raise Refused(f"holds a value that is not read: {type(value).__name__}")
        elif value.dtype == object:
            waiting.extend(value.flat)


def fields(value):
    """`{field: value}` of a single struct, `{}` if there is none."""
    while isinstance(value, np.ndarray) and value.dtype == object and value.size == 1:
        value = value.flat[0]
    names = getattr(value, "_fieldnames", ())
    return {name: vars(value)[name] for name in names}


def layer_arrays(layer, number):
    """Kernel and bias of one layer, in either of MatConvNet's spellings; `{}` if it has none."""
    name, kind = text(layer.get("name")), text(layer.get("type"))
    weights = layer.get("weights")
    if weights is None:
        weights = [w for w in map(layer.get, ("filters", "biases")) if w is not None]
    elif weights.dtype == object:
        weights = list(weights.flat)
    else:
        weights = [weights] if weights.size else []
    if not weights and kind != "conv":
        return {}
    label = name or f"number {number}"
    if not name or kind != "conv":
        raise Refused(f"has weights, its name is {name!r} and its type {kind!r}", label)
    if len(weights) != 2 or any(w.dtype.kind not in NUMBERS for w in weights):
        raise Refused("expected two arrays of real numbers, a kernel and a bias", label)
    kernel, bias = weights
    if kernel.ndim > 4 or not kernel.size:
        raise Refused(f"expected a kernel HxWxInxOut, has shape {kernel.shape}", label)
    kernel = kernel.reshape(kernel.shape + (1,) * (4 - kernel.ndim), order="F")
    if bias.size != kernel.shape[3] or bias.size != max(bias.shape):
        raise Refused(f"the kernel is {kernel.shape}, the bias {bias.shape}", label)
    return {f"{name}/kernel": kernel.T, f"{name}/bias": bias.reshape(-1)}


def text(value):
    return str(value.flat[0]) if getattr(value, "size", 0) == 1 and value.dtype.kind == "U" else ""


def mean_colour(image):
    colours = image.size == 3 or (image.ndim == 3 and image.shape[2] == 3)
    if image.dtype.kind not in NUMBERS or not colours:
        raise Refused(f"expected a mean picture HxWx3, has {image.dtype} {image.shape}")
    return image.reshape(-1, 3).mean(axis=0, dtype=np.float64)


def read_torch(path, most):
    """`{key: array}` of a state dict, which may lie under "state_dict"."""
    import torch

    if tuple(int(n) for n in torch.__version__.split(".")[:2]) < (2, 6):
        raise Missing(f"reading it takes torch 2.6 or later, has {torch.__version__}", "torch")
    with open(path, "rb") as file:
        archive = file.read(4) == b"PK\3\4"
    found = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict):
        raise Refused(f"expected a state dict, has {type(found).__name__}")
    arrays, total = {}, 0
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise Refused(f"expected tensors by name, has {type(value).__name__}", str(key)[:80])
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise Refused("expected a dense tensor", key[:80])
        if value.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            raise Refused(f"expected floats, has {value.dtype}", key[:80])
        total += 4 * value.numel()
        if total > most:
            raise Refused("its tensors are larger than the file", key[:80])
        arrays[key] = value.detach()
    return arrays


def numbers(array):
    """A contiguous float32 copy, or the array itself if that is what it is."""
    if not isinstance(array, np.ndarray):  # a tensor; numpy has no bfloat16
        array = array.float().contiguous().numpy()
    with np.errstate(all="ignore"):
        return np.ascontiguousarray(array, "<f4")


def limit(memory, seconds):
    """Caps what this process may take from here on; what it has already taken is not counted."""
    try:
        import resource
    except ImportError:  # Windows: the parent's clock is the only limit
        return
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with contextlib.suppress(OSError, ValueError):
        used = resource.getrusage(resource.RUSAGE_SELF)
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(
            resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + seconds + 1, hard)
        )
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory, hard))


def answer(read, request, out):
    """Reads one file and writes the reply."""
    try:
        limit(request["memory"], request["seconds"])
        arrays = read(request["path"], request["most"])
        if 4 * sum(int(np.prod(a.shape, dtype=float)) for a in arrays.values()) > request["most"]:
            raise Refused("its arrays are larger than the file")
        reply = {"arrays": [(name, list(array.shape)) for name, array in arrays.items()]}
    except (Refused, Missing) as error:
        arrays, reply = {}, error.reply
    except MemoryError:
        arrays, reply = {}, {"memory": True}
    except ImportError as error:
        library = "scipy" if read is read_mat else "torch"
        wrong = f"reading it takes {library}, which is not installed ({error})"
        arrays, reply = {}, {"wrong": wrong, "missing": library}
    except Exception as error:  # the libraries raise almost anything over forged bytes
        arrays, reply = {}, {"wrong": f"damaged: {type(error).__name__}: {error}"[:1000]}
        if type(error).__name__ == "UnpicklingError":  # whose text tells how to be unsafe
            reply = unpicklable(str(error))
    out.write(json.dumps(reply).encode() + b"\n")
    for array in arrays.values():
        out.write(numbers(array).reshape(-1).view("u1"))
    out.flush()


def unpicklable(said):
    """The reply to a file that is no plain state dict, from what torch says of it."""
    found = re.search(r"GLOBAL ([\w.]+)", said)
    if not found:
        return {"wrong": "damaged, or not a plain state dict"}
    return {"wrong": f"a pickled {found[1]}, not a plain state dict", "pickled": True}


def main(kind):
    """Answers requests until the parent closes the pipe."""
    warnings.simplefilter("ignore")
    read = {"mat": read_mat, "torch": read_torch}[kind]
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)  # a library that prints must not reach the parent
        with contextlib.suppress(ImportError):  # before the limits, which are on top of this
            __import__({"mat": "scipy.io", "torch": "torch"}[kind])
        out.write(b"READY\n")
        out.flush()
        for line in sys.stdin.buffer:
            answer(read, json.loads(line), out)


if __name__ == "__main__":
    main(sys.argv[1])
