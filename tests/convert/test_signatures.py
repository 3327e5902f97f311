"""Files that are not what their names say: what they are is said, and what to do."""

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from inverse_set.convert import converting, signatures, unpack
from inverse_set.errors import WeightError
from tests.convert import caffe_files, other_files

WEIGHTS = np.random.default_rng(0).bytes(3000)
PROTOTXT = b"""# the network
name: "CaffeNet"
layer {
  name: "data"
  type: "Input"
}
"""


def saved(save, *arguments, **more):
    """The bytes that a writer of files writes."""
    out = io.BytesIO()
    save(out, *arguments, **more)
    return out.getvalue()


def tarred(file):
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo("net.caffemodel")
        info.size = len(WEIGHTS)
        archive.addfile(info, io.BytesIO(WEIGHTS))


def zipped(file, *names):
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, WEIGHTS)


def safetensors(length):
    return length.to_bytes(8, "little") + b'{"a":' + b" " * (length - 5) + bytes(99)


WHAT = [
    (b"", "an empty file", "download it again"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS", "git lfs pull"),
    (b"<!DOCTYPE html><html>", "a web page", "browser"),
    (b"\xef\xbb\xbf\r\n  <HTML lang='de'>\xfc", "a web page", "browser"),
    (b"<?xml version='1.0'?><Error>", "a web page", "browser"),
    (b'{"error": "Not\xc2\x9b found"}', "a text", "weights"),
    ("nicht gefunden: ä".encode() * 99, "begins with 'nicht gefunden", "weights"),
    (b" \n ", "begins with blanks", "weights"),
    (PROTOTXT, "prototxt", ".caffemodel"),
    (b"input: 'data'\ninput_dim: 1\n", "prototxt", ".caffemodel"),
    (b"layers {\r\n layer {", "prototxt", ".caffemodel"),
    (gzip.compress(WEIGHTS), "gzip", "unpack"),
    (bz2.compress(WEIGHTS), "bzip2", "unpack"),
    (lzma.compress(WEIGHTS), "xz", "unpack"),
    (b"\x28\xb5\x2f\xfd" + WEIGHTS, "zstd", "unpack"),
    (b"7z\xbc\xaf\x27\x1c" + WEIGHTS, "7z", "unpack"),
    (saved(tarred), "a tar archive", "unpack"),
    (saved(zipped, "a/net.caffemodel"), "a zip archive", "unpack"),
    (saved(zipped, "a/net.caffemodel")[:2000], "a zip archive", "unpack"),
    (saved(zipped, "conv1/kernel.npy"), "an .npz archive", "ends in .npz"),
    (saved(zipped, "a/data.pkl", "a/data/0", "a/version"), "a file of PyTorch", "ends in .pt"),
    (saved(zipped, "a/data.pkl", "a/constants.pkl", "a/code/b.py"), "TorchScript", "torch.jit"),
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M", "a file of PyTorch", "ends in .pt"),
    (saved(np.save, np.zeros(3)), "an .npy of one array", ".npz"),
    (b"\x89HDF\r\n\x1a\n" + WEIGHTS, "an HDF5 file", "Net.save"),
    (b"MATLAB 7.3 MAT-file, Platform".ljust(512) + b"\x89HDF\r\n\x1a\n", "an HDF5 file", "MATLAB"),
    (bytes(512) + b"\x89HDF\r\n\x1a\n", "an HDF5 file", "MATLAB"),
    (b"MATLAB 5.0 MAT-file, Platform".ljust(600), "a .mat file", "ends in .mat"),
    (safetensors(200), "a safetensors file", "ends in .safetensors"),
    (safetensors(0x8B1F), "a safetensors file", "ends in .safetensors"),  # begins as a gzip does
    (saved(Image.new("RGB", (4, 4)).save, "PNG"), "a picture", "--images"),
    (saved(Image.new("RGB", (4, 4)).save, "JPEG"), "a picture", "--images"),
    (b"%PDF-1.5 \x00", "a PDF", "weights"),
    *[(pickle.dumps({"conv1": WEIGHTS}, n), "a pickle", "numpy.savez") for n in range(2, 6)],
]


# Numbered: bytes of an archive hold the time, and processes that share tests need equal names.
@pytest.mark.parametrize(("data", "what", "remedy"), WHAT, ids=range(len(WHAT)))
def test_what_it_is_is_said(tmp_path, data, what, remedy):
    """Of a network's file and of a mean picture, of a known and of an unknown ending."""
    for read, names in (
        (converting.read, ("net.caffemodel", "net.h5", "net")),
        (converting.read_mean, ("mean.binaryproto", "mean.jpeg")),
    ):
        for name in names:
            path = tmp_path / name
            path.write_bytes(data)
            with pytest.raises(WeightError) as caught:
                read(path)
            error = caught.value
            assert error.what.startswith(f"{path}: this is ") and what in error.what
            assert remedy in error.remedy and error.what.isprintable()


def test_a_file_that_is_what_it_says_is_left_to_its_reader(tmp_path):
    values = np.ones(3, np.float32)
    caffe_files.write(tmp_path / "a.caffemodel", [("a", "convolution", [values])])
    caffe_files.write_mean(tmp_path / "a.binaryproto", values[:, None, None])
    np.save(tmp_path / "a.npy", values)
    layers = other_files.named(other_files.weights())
    other_files.npz(tmp_path / "a.npz", layers)
    other_files.safetensors(tmp_path / "a.safetensors", layers)
    (tmp_path / "a.pt").write_bytes(saved(zipped, "a/data.pkl", "a/data/0"))
    (tmp_path / "a.pth").write_bytes(pickle.dumps({}))
    (tmp_path / "a.mat").write_bytes(b"MATLAB 7.3 MAT-file, Platform".ljust(600))
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-9])
    (tmp_path / "random.mat").write_bytes(WEIGHTS)
    for path in tmp_path.iterdir():
        signatures.check(path, path.suffix)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_an_archive_that_is_none(tmp_path, name):
    (tmp_path / name).write_bytes(b"<html>")
    with pytest.raises(WeightError, match="this is a web page"):
        unpack.extract(tmp_path / name, "net", tmp_path / "net", 1 << 20)
    (tmp_path / name).write_bytes(saved(tarred))
    with pytest.raises(WeightError, match="this is a tar archive"):
        unpack.extract(tmp_path / name, "net", tmp_path / "net", 1 << 20)
