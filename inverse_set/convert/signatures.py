"""What a file is by its first bytes, where these are not of the kind that its name promises."""

import re
import zipfile
from typing import NamedTuple

from inverse_set.convert.files import one_line, reading, regular_size
from inverse_set.errors import WeightError

_HEAD = 1024  # bytes looked at


class Kind(NamedTuple):
    """what: it is.  remedy: what to do about it.  endings: of the names under which it is read."""

    what: str
    remedy: str
    endings: tuple = ()


_AGAIN = "download it again"
_INSIDE = "unpack it, and give the file inside"
_TENSORS = "torch.save({}.state_dict(), 'weights.pt')"
_TORCH = Kind("a file of PyTorch", "give it a name that ends in .pt", (".pt", ".pth"))
_SCRIPT = Kind(
    "a TorchScript archive, a program with its weights",
    f"in PyTorch, {_TENSORS.format('torch.jit.load(FILE)')} saves the weights alone",
)
_NPZ = Kind("an .npz archive of arrays", "give it a name that ends in .npz", (".npz",))
_ZIP = Kind("a zip archive", _INSIDE, (".zip",))
_PAGE = Kind(
    "a web page, not the file it was to lead to",
    "open the address in a browser, and download the file itself",
)
_PROTOTXT = Kind(
    "a text that defines a network (prototxt), without its weights",
    "give the .caffemodel that belongs to it",
)
_HDF5 = Kind(
    "an HDF5 file",
    "one of Caffe's (.caffemodel.h5): load it in Caffe, and save it by Net.save as .caffemodel; "
    "one of MATLAB's: save it again as version 7",
    (".mat",),  # whose reader knows more about it
)
# (offset, bytes that may stand there, kind)
_TABLE = (
    (  # before all others: it begins with a length, which may look like anything
        4,
        (b"\0\0\0\0{",),
        Kind("a safetensors file", "give it a name that ends in .safetensors", (".safetensors",)),
    ),
    (
        0,
        (b"version https://git-lfs.github.com/",),
        Kind(
            "a Git LFS pointer, which stands for the file",
            "run `git lfs pull` in the repository, or download the file from its web page",
        ),
    ),
    (0, (b"\x1f\x8b",), Kind("compressed with gzip", _INSIDE, (".gz",))),
    (4, (b"1AY&SY",), Kind("compressed with bzip2", _INSIDE)),
    (0, (b"\xfd7zXZ\0",), Kind("compressed with xz", _INSIDE)),
    (0, (b"\x28\xb5\x2f\xfd",), Kind("compressed with zstd", _INSIDE)),
    (0, (b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07"), Kind("a 7z or RAR archive", _INSIDE)),
    (257, (b"ustar",), Kind("a tar archive", _INSIDE)),
    (0, (b"\x89HDF\r\n\x1a\n", b"MATLAB 7.3 MAT-file"), _HDF5),
    (512, (b"\x89HDF\r\n\x1a\n",), _HDF5),
    (
        0,
        (b"MATLAB 5.0 MAT-file",),
        Kind("a .mat file of MATLAB", "give it a name that ends in .mat", (".mat",)),
    ),
    (
        0,
        (b"\x93NUMPY",),
        Kind(
            "an .npy of one array",
            "weights come as .npz; give a mean picture a name that ends in .npy",
            (".npy",),
        ),
    ),
    (
        0,
        (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8"),
        Kind("a picture", "give a weight file; natural pictures go into the folder of --images"),
    ),
    (0, (b"%PDF-",), Kind("a PDF document", "download the weights that it describes")),
    (0, (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",), _TORCH),
    (
        0,
        tuple(bytes([0x80, version, code]) for version in range(2, 6) for code in b"}]c(K\x95"),
        Kind(
            "a pickle of Python, which is not opened since it may run any program",
            "if you trust it, load it in Python and save its arrays by numpy.savez",
            (".pt", ".pth"),
        ),
    ),
)


def check(path, ending):
    """WeightError if the file at `path` is of a kind that is not read under `ending`."""
    size = regular_size(path)
    with reading(path), open(path, "rb") as file:
        head = file.read(_HEAD)
    found = _kind(path, head, size)
    if found and ending not in found.endings:
        raise WeightError(path, f"this is {found.what}", remedy=found.remedy)


def _kind(path, head, size):
    if not size:
        return Kind("an empty file", _AGAIN)
    for at, starts, kind in _TABLE:
        if head[at:].startswith(starts):
            return kind
    if head.startswith(b"PK\3\4"):
        return _archive(path)
    return _text(head)


def _archive(path):
    """What a zip archive is by the names in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # damaged: its reader says where
        return _ZIP._replace(endings=(*_ZIP.endings, *_NPZ.endings, *_TORCH.endings))
    tops = {name.partition("/")[2] for name in names}
    if "constants.pkl" in tops:
        return _SCRIPT
    if "data.pkl" in tops:
        return _TORCH
    if not names or any(name.endswith(".npy") for name in names):
        return _NPZ
    return _ZIP


def _text(head):
    """The kind of a text; None if it is none."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if re.match(rb"<(!doctype|html|head|body|\?xml|!--)", start, re.IGNORECASE):
        return _PAGE
    if re.search(rb"[^\t\n\f\r\x20-\x7e\x80-\xff]", head):
        return None
    try:
        said = start.decode()
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:  # not merely cut within the last character
            return None
        said = start[: error.start].decode()
    if re.search(r"(?m)^\s*(name|layers?|input|input_dim|input_shape|state)\s*[:{]", said):
        return _PROTOTXT
    first = one_line(repr(said.strip().splitlines()[0][:60])) if said.strip() else "blanks"
    return Kind(f"a text, which begins with {first}", "give the file of the weights")
