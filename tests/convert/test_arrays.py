"""Plain array files: what is read in each spelling, and what is refused."""

import os
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inverse_set.convert import arrays
from inverse_set.errors import WEIGHTS, WeightError
from tests.convert import other_files as write

SPELLINGS = (("/kernel", "/bias"), (".weight", ".bias"), ("_W", "_b"))
READERS = (arrays.read_npz, arrays.read_safetensors, arrays.read_mean)


def same(found, expected):
    assert list(found) == list(expected)
    for name, pair in expected.items():
        for got, wanted in zip(found[name], pair, strict=True):
            assert got.dtype == np.float32 and got.flags.c_contiguous
            np.testing.assert_array_equal(got, wanted)


def refused(read, path, *words):
    with pytest.raises(WeightError) as caught:
        read(path)
    assert caught.value.code == WEIGHTS
    assert caught.value.what.startswith(str(path)) and caught.value.what.isprintable()
    for word in words:
        assert word in caught.value.what, caught.value.what
    return caught.value


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_npz_in_every_spelling(tmp_path, spelling, method):
    path = write.npz(tmp_path / "w.npz", write.named(write.weights(), *spelling), method)
    same(arrays.read_npz(path), write.weights())


def test_numpy_writes_what_is_read(tmp_path):
    layers = {"fc6": (np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.zeros(2, ">f8"))}
    np.savez_compressed(tmp_path / "w.npz", **write.named(layers))
    same(arrays.read_npz(tmp_path / "w.npz"), layers)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_safetensors_in_every_spelling(tmp_path, spelling):
    path = write.safetensors(tmp_path / "w", write.named(write.weights(), *spelling))
    found = arrays.read_safetensors(path)
    same({name: found[name] for name in write.weights()}, write.weights())


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floats_become_float32(tmp_path, dtype):
    given = write.named(write.weights())
    expected = {key: array.astype(dtype).astype(np.float32) for key, array in given.items()}
    found = arrays.read_safetensors(write.safetensors(tmp_path / "w", given, dtype))
    for name, (kernel, bias) in found.items():
        np.testing.assert_array_equal(kernel, expected[name + "/kernel"])
        np.testing.assert_array_equal(bias, expected[name + "/bias"])


def test_a_mean_is_a_colour_or_an_image(tmp_path):
    colour = np.array([104.0, 116.7, 122.7], np.float32)
    np.save(tmp_path / "colour.npy", colour)
    image = np.broadcast_to(colour[:, None, None], (3, 4, 2)).astype(float)
    image += np.array([1, -1])
    np.save(tmp_path / "image.npy", image)
    np.save(tmp_path / "batch.npy", image[None])
    np.save(tmp_path / "row.npy", colour[None])
    for name in ("colour", "image", "batch", "row"):
        found = arrays.read_mean(tmp_path / f"{name}.npy")
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, colour, rtol=1e-6)


@pytest.mark.parametrize(
    "data",
    [
        write.npy_bytes(np.zeros(4, "f4")),
        write.npy_bytes(np.zeros((4, 4, 3), "f4")),
        write.npy_bytes(np.zeros((2, 3, 4, 4), "f4")),
        write.npy_bytes(np.zeros((1, 1, 3, 4, 4), "f4")),
        write.npy_bytes(np.zeros((3, 1), "f4")),
        write.npy_bytes(np.zeros((3, 0, 4), "f4")),
        write.npy_bytes(np.zeros(3, "i4")),
        write.npy_bytes(np.zeros(3, "c8")),
        write.npy_bytes(np.zeros(3, "U3")),
        write.npy_bytes(np.array([1, np.nan, 2])),
        write.npy_bytes(np.array([1, 1e300, 2])),
        write.npy_bytes(np.array([1, None, 2]), allow_pickle=True),
        write.npy_bytes(np.zeros(3)) + b"\0",
        write.npy_bytes(np.zeros(3))[:-1],
        write.forged_npy("(3, 65536, 65536)"),
        write.forged_npy("(3, -1, -4)", data=bytes(48)),
        write.forged_npy("(3, 0, 99999999999999999999999)"),
        write.forged_npy("(" * 3000),
        b"\x93NUMPY\x07\x00",
        b"",
    ],
)
def test_other_means_are_refused(tmp_path, data):
    (tmp_path / "mean.npy").write_bytes(data)
    refused(arrays.read_mean, tmp_path / "mean.npy")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"conv1_W": np.zeros((4, 3, 2, 5), "f4")}, "two arrays are its kernel"),
        ({"conv9/kernel": np.zeros((4, 3), "f4")}, "there is no bias"),
        ({"conv9/bias": np.zeros(4, "f4")}, "there is no kernel"),
        ({"conv9": np.zeros(4, "f4")}, "expected keys such as"),
        ({"../\x1b/bias": np.zeros(4, "f4")}, "the name"),
        ({"\x1b[2J/kernel": np.zeros((4, 3), "i4")}, "the name '\\x1b[2J'"),
        ({"conv1/bias": np.zeros((4, 1), "f4")}, "rank 1"),
        ({"conv1/kernel": np.zeros((4, 3, 2), "f4")}, "rank 2 or 4"),
        ({"conv1/kernel": np.zeros((4, 0), "f4")}, "empty"),
        ({"conv1/kernel": np.zeros((4, 3), "i4")}, "expected"),
        ({"conv1/kernel": np.full((4, 3), np.nan, "f4")}, "not finite"),
    ],
)
@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_other_arrays_are_refused(tmp_path, change, word, kind):
    path = getattr(write, kind)(tmp_path / "w", write.named(write.weights()) | change)
    refused(getattr(arrays, f"read_{kind}"), path, word)


def test_an_empty_archive_is_refused(tmp_path):
    refused(arrays.read_npz, write.npz(tmp_path / "a", {}), "no weights")
    refused(arrays.read_safetensors, write.safetensors(tmp_path / "b", {}), "no weights")


def test_an_npz_that_declares_more_than_it_holds(tmp_path):
    forged = write.forged_npy("(65536, 65536, 2)")
    refused(arrays.read_npz, write.npz(tmp_path / "a", {"a/kernel": forged}), "declares")
    zeros = write.npy_bytes(np.zeros(1 << 25, "f4"))
    bomb = write.npz(tmp_path / "b", {"a/bias": zeros}, zipfile.ZIP_DEFLATED)
    refused(arrays.read_npz, bomb, "too much for its size")
    small = write.npy_bytes(np.zeros(1 << 23, "f2"))
    many = {f"{i}/bias": small for i in "abc"}
    bomb = write.npz(tmp_path / "c", many, zipfile.ZIP_DEFLATED)
    refused(arrays.read_npz, bomb, "too large for its size")


def test_members_that_are_not_plain_arrays_are_refused(tmp_path):
    path = write.npz(tmp_path / "a", {"a/bias": np.zeros(3, "f4")}, zipfile.ZIP_BZIP2)
    refused(arrays.read_npz, path, "unusual method")
    objects = write.npy_bytes(np.array([None]), allow_pickle=True)
    refused(arrays.read_npz, write.npz(tmp_path / "b", {"a/bias": objects}), "expected floats")
    with zipfile.ZipFile(tmp_path / "c", "w") as archive:
        archive.writestr("readme.txt", "")
    refused(arrays.read_npz, tmp_path / "c", "is not an array")
    with zipfile.ZipFile(tmp_path / "d", "w") as archive, pytest.warns(UserWarning):
        archive.writestr("a/bias.npy", write.npy_bytes(np.zeros(3)))
        archive.writestr("a/bias.npy", write.npy_bytes(np.zeros(3)))
    refused(arrays.read_npz, tmp_path / "d", "the same name")


def test_an_encrypted_member_and_a_wrong_checksum(tmp_path):
    good = write.npz(tmp_path / "w", write.named(write.weights())).read_bytes()
    data = bytearray(good)
    data[data.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "a").write_bytes(data)
    refused(arrays.read_npz, tmp_path / "a", "is encrypted", "byte 0")
    data = bytearray(good)
    data[200] ^= 1
    (tmp_path / "b").write_bytes(data)
    refused(arrays.read_npz, tmp_path / "b", "CRC")


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"a/bias": {"dtype": "F32", "shape": [1099511627776], "data_offsets": [0, 4]}}',
        b'{"a/bias": {"dtype": "F32", "shape": [1], "data_offsets": [0, 99999999]}}',
        b'{"a/bias": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
    ],
)
def test_forged_safetensors_headers(tmp_path, header):
    refused(arrays.read_safetensors, write.safetensors(tmp_path / "w", {}, header=header))


def test_a_safetensors_header_has_a_cap(tmp_path):
    path = tmp_path / "w"
    for length in (1 << 63, 100, arrays.MAX_HEADER + 1):
        path.write_bytes(struct.pack("<Q", length) + b"{}")
        refused(arrays.read_safetensors, path, "first 8 bytes")
    path.write_bytes(struct.pack("<Q", arrays.MAX_HEADER + 1) + b" " * (arrays.MAX_HEADER + 9))
    refused(arrays.read_safetensors, path, "first 8 bytes")


@pytest.mark.parametrize("read", READERS)
def test_only_regular_files_are_opened(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        refused(read, path, "not a regular file")
    refused(read, tmp_path / "none", "No such file")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    refused(read, tmp_path / "loop", "cannot be read")


def test_a_link_is_followed(tmp_path):
    write.npz(tmp_path / "w.npz", write.named(write.weights()))
    (tmp_path / "link").symlink_to(tmp_path / "w.npz")
    same(arrays.read_npz(tmp_path / "link"), write.weights())


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("name", ["w.npz", "w.npy", "w.safetensors"])
def test_a_pickle_in_disguise_is_not_run(tmp_path, read, name):
    marker = tmp_path / "marker"
    (tmp_path / name).write_bytes(pickle.dumps(write.Marker(marker)))
    refused(read, tmp_path / name)
    inside = write.npz(tmp_path / "b", {"a/bias": pickle.dumps(write.Marker(marker))})
    refused(arrays.read_npz, inside)
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["npz", "safetensors", "mean"])
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4), st.floats(0, 1))
@settings(
    max_examples=150, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_damaged_file_is_read_or_refused(tmp_path, kind, changes, end):
    path = tmp_path / "w"
    if kind == "mean":
        path.write_bytes(write.npy_bytes(np.zeros((3, 4, 4))))
    else:
        getattr(write, kind)(path, write.named(write.weights()))
    data = bytearray(path.read_bytes())
    for place, value in changes:
        data[int(place * (len(data) - 1))] = value
    path.write_bytes(data if end > 0.5 else data[: int(2 * end * len(data))])
    try:
        getattr(arrays, f"read_{kind}")(path)
    except WeightError as error:
        assert error.code == WEIGHTS
