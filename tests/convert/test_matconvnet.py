"""MatConvNet files: every layout of them, what is refused, and a child that comes to harm."""

import pickle
import random
import struct
import sys
import time

import numpy as np
import pytest

from inverse_set.convert import isolated, matconvnet
from inverse_set.convert.files import NORM, POOL
from inverse_set.convert.isolated import Child
from inverse_set.errors import WeightError
from tests.convert import other_files as write
from tests.convert.test_arrays import refused, same

matlab = pytest.importorskip("scipy.io.matlab")
MEAN = np.array([122.5, 116.5, 104.0], np.float32)  # RGB


@pytest.fixture(scope="module")
def child():
    with Child("mat") as child:
        yield child


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("meta", [True, False])
@pytest.mark.parametrize("net", [True, False])
def test_every_layout(tmp_path, child, compressed, old, meta, net):
    layers = write.weights()
    path = write.mat(tmp_path / "w.mat", layers, MEAN[None, None], old, meta, compressed, net)
    found, mean, order = matconvnet.read(path, child)
    same(found, layers)
    assert mean.dtype == np.float32 and order == ()
    np.testing.assert_array_equal(mean, MEAN[::-1])
    np.testing.assert_array_equal(matconvnet.read_mean(path, child), mean)


def test_the_order_of_pooling_and_normalisation(tmp_path, child):
    layers = write.weights() | {"a": "pool", "b": "normalize", "c": "lrn", "d": "dropout"}
    found = matconvnet.read(write.mat(tmp_path / "w.mat", layers), child)
    assert found.order == (POOL, NORM, NORM)
    same(found.layers, write.weights())


@pytest.mark.parametrize("name", ["image_mean", "mean_data"])
def test_caffes_mean_picture(tmp_path, child, name):
    """BGR already, and of any height and width."""
    image = np.zeros((4, 2, 3), np.float32) + MEAN[::-1] + np.array([1, -1])[:, None]
    path = write.mat(tmp_path / "ilsvrc.mat", {}, layers=0.0, **{name: image})
    found = matconvnet.read_mean(path, child)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, MEAN[::-1], rtol=1e-6)
    error = refused(lambda path: matconvnet.read(path, child), path, "no network")
    assert "--mean" in error.remedy
    write.mat(path, {}, layers=0.0, **{name: image[..., :2]})
    refused(lambda path: matconvnet.read_mean(path, child), path, "HxWx3, has float64 (4, 2, 2)")


def test_a_networks_own_mean_comes_before_caffes(tmp_path, child):
    path = write.mat(tmp_path / "w.mat", write.weights(), MEAN, image_mean=np.zeros((1, 1, 3)))
    np.testing.assert_array_equal(matconvnet.read(path, child).mean, MEAN[::-1])
    error = refused(
        lambda path: matconvnet.read_mean(path, child),
        write.mat(path, write.weights()),
        "no mean picture",
    )
    assert "leave --mean out" in error.remedy


def test_known_values_at_known_places(tmp_path):
    conv1 = np.zeros((2, 3, 3, 4), np.float32)  # HxWxInxOut, RGB
    conv1[1, 2, 0, 3] = 7
    fc6 = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    items = [
        {"name": "conv1", "type": "conv", "weights": write.cell(conv1, np.arange(4.0)[:, None])},
        {"name": "fc6", "type": "conv", "weights": write.cell(fc6, np.arange(5.0))},
    ]
    write.mat(tmp_path / "w.mat", {}, layers=write.cell(*items))
    layers, mean, _ = matconvnet.read(tmp_path / "w.mat")
    kernel, bias = layers["conv1"]
    assert mean is None and kernel.shape == (4, 3, 2, 3) and bias.tolist() == [0, 1, 2, 3]
    assert kernel[3, 2, 1, 2] == 7 and kernel.sum() == 7
    kernel = layers["fc6"][0]
    assert kernel.shape == (5, 4 * 2 * 3)
    assert kernel[2, 3 * 6 + 1 * 3 + 2] == fc6[1, 2, 3, 2]


def test_a_mean_image_is_averaged_and_lost_axes_come_back(tmp_path, child):
    layers = {"conv1": (np.ones((1, 1, 2, 2), "f4"), np.zeros(1, "f4"))}
    image = np.zeros((2, 4, 3)) + MEAN + np.array([1, -1])[:, None, None]
    found, mean, _ = matconvnet.read(write.mat(tmp_path / "w.mat", layers, image), child)
    same(found, layers)
    np.testing.assert_array_equal(mean, MEAN[::-1])


def network(**layer):
    good = np.zeros((1, 1, 2, 3), "f4"), np.zeros((1, 3), "f4")
    return {
        "layers": write.cell({"name": "a", "type": "conv", "weights": write.cell(*good)} | layer)
    }


PARTIAL = np.zeros((1, 1), dtype=[("a", object)])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, ["no cell array named layers"]),
        ({"layers": np.zeros(3)}, ["no cell array named layers"]),
        ({"layers": 0.0, "cnn": 1.0}, ["no cell array named layers", "its variables: layers, cnn"]),
        ({"layers": 0.0, "net": network()["layers"]}, ["no cell array named layers"]),
        ({"layers": write.cell({"name": "r", "type": "relu"})}, ["no layer of it has weights"]),
        (network(type="bnorm"), ["layer a", "'bnorm'"]),
        (network(name=""), ["layer number 1", "its name is ''"]),
        (network(name="\x1b[1m"), ["a layer has the name"]),
        (network(weights=np.zeros((0, 0))), ["layer a", "expected two arrays"]),
        (network(weights=write.cell(np.zeros((1, 1, 2, 3)))), ["expected two arrays"]),
        (network(weights=write.cell(np.zeros((1, 1, 2, 3)), np.zeros(4))), ["the bias (1, 4)"]),
        (network(weights=write.cell(np.zeros((1,) * 5), np.zeros(1))), ["HxWxInxOut"]),
        (network(weights=write.cell("text", np.zeros(4))), ["two arrays of real numbers"]),
        (network(weights=write.cell({"b": 1.0}, np.zeros(4))), ["two arrays of real numbers"]),
        (network(weights=write.cell(np.full((1, 1, 2, 1), np.nan), np.zeros(1))), ["not finite"]),
        (network(weights=write.cell(np.full((1, 1, 2, 1), 1j), np.zeros(1))), ["two arrays"]),
        ({"layers": write.cell(*2 * [network()["layers"][0, 0]])}, ["layer a", "two layers"]),
        (network(extra=matlab.MatlabObject(PARTIAL, "net")), ["an object or a function"]),
        (network() | {"normalization": {"averageImage": np.zeros((2, 2))}}, ["mean picture"]),
        (network() | {"normalization": {"averageImage": np.full(3, np.nan)}}, ["not finite"]),
    ],
)
def test_other_contents_are_refused(tmp_path, child, content, words):
    path = write.mat(tmp_path / "w.mat", {}, **({"layers": write.cell()} | content))
    if not content:
        write.mat(path, {}, layers=1.0)
    refused(lambda path: matconvnet.read(path, child), path, *words)


def test_other_versions_are_refused(tmp_path):
    path = tmp_path / "w.mat"
    good = write.mat(path, write.weights()).read_bytes()
    for data, word in (
        (b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + bytes(500), "version 7.3"),
        (bytes(512) + b"\x89HDF\r\n\x1a\n" + bytes(99), "version 7.3"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "version 7.3"),
        (good[:124] + b"\x01\x00MI" + good[128:], "most significant byte first"),
        (good[:124] + b"\x00\x02IM" + good[128:], "not a .mat file of version 5"),
        (b"", "not a .mat file of version 5"),
        (good[:100], "not a .mat file of version 5"),
    ):
        path.write_bytes(data)
        refused(matconvnet.read, path, word)
    assert "-v7" in refused_remedy(path, b"MATLAB 7.3 MAT-file" + bytes(500))


def refused_remedy(path, data):
    path.write_bytes(data)
    return refused(matconvnet.read, path).remedy


def test_a_file_cut_short_says_where(tmp_path, child):
    path = tmp_path / "w.mat"
    for compressed in (True, False):
        good = write.mat(path, write.weights(), compressed=compressed).read_bytes()
        for end in (len(good) - 8, 200, 140, 131):
            path.write_bytes(good[:end])
            refused(lambda path: matconvnet.read(path, child), path, "byte 128")
    path.write_bytes(good[:128] + struct.pack("<II", 99, 8) + bytes(8))
    refused(lambda path: matconvnet.read(path, child), path, "byte 128", "expected a variable")


def test_a_bomb_is_refused_before_it_unfolds(tmp_path, child):
    path = write.mat(tmp_path / "w.mat", {}, layers=np.zeros(40 << 20, "f4"))
    assert path.stat().st_size < 1 << 20
    start = time.monotonic()
    refused(lambda path: matconvnet.read(path, child), path, "too much for its size")
    assert time.monotonic() - start < 5


def library(folder, monkeypatch, name, code):
    """Puts a library of our own in the child's way."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code if name == "torch" else "")
    if name == "scipy":
        (folder / name / "io.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))


# What is called too deeply; later versions of Python may use up the stack before they count.
DEEP = "RecursionError" if sys.version_info < (3, 12) else ""


@pytest.mark.parametrize(
    ("code", "word", "limits"),
    [
        ("import os; os.abort()", "crashed (SIGABRT)", {}),
        ("import os; os._exit(3)", "gave up", {}),
        (
            "import time\ndef loadmat(*a, **k): time.sleep(60)",
            "reading took longer than 0.5 s",
            {"seconds": 0.5},
        ),
        ("def loadmat(*a, **k): bytearray(1 << 30)", "more than 300 MiB", {"memory": 300 << 20}),
        ("raise ImportError('no such thing')", "takes scipy, which is not installed", {}),
        ("def loadmat(*a, **k): raise SystemError('a\\nb\\x1b')", "SystemError: a b?", {}),
        ("def loadmat(*a, **k): [loadmat() for _ in [1]]", DEEP, {}),
    ],
)
def test_harm_to_the_child_is_a_reason(tmp_path, monkeypatch, code, word, limits):
    library(tmp_path / "lib", monkeypatch, "scipy", code)
    path = write.mat(tmp_path / "w.mat", write.weights())
    start = time.monotonic()
    with Child("mat") as child:
        error = refused(lambda path: child.read(path, **limits), path, word)
    assert time.monotonic() - start < 5
    assert ("install scipy" in error.remedy) == ("ImportError" in code)


def test_the_time_limit_counts_from_the_end_of_the_import(tmp_path, monkeypatch):
    slow = "import time; time.sleep(1)\ndef loadmat(*a, **k): raise SystemError('read at last')"
    library(tmp_path / "lib", monkeypatch, "scipy", slow)
    path = write.mat(tmp_path / "w.mat", write.weights())
    with Child("mat") as child:
        refused(lambda path: child.read(path, seconds=0.9), path, "read at last")


def test_an_import_that_never_ends(tmp_path, monkeypatch):
    library(tmp_path / "lib", monkeypatch, "scipy", "import time; time.sleep(60)")
    monkeypatch.setattr(isolated, "STARTUP", 0.5)
    path = write.mat(tmp_path / "w.mat", write.weights())
    with Child("mat") as child:
        error = refused(child.read, path, "importing", "took longer than 0.5 s")
    assert "less busy" in error.remedy and child.process is None


def test_a_library_that_prints_disturbs_nothing(tmp_path, monkeypatch):
    code = (
        "print('hello', flush=True)\ndef loadmat(*a, **k): print('again'); raise SystemError('x')"
    )
    library(tmp_path / "lib", monkeypatch, "scipy", code)
    path = write.mat(tmp_path / "w.mat", write.weights())
    with Child("mat") as child:
        refused(child.read, path, "SystemError: x")


def test_a_child_that_died_is_replaced(tmp_path):
    path = write.mat(tmp_path / "w.mat", write.weights())
    with Child("mat") as child:
        matconvnet.read(path, child)
        child.process.kill()
        child.process.wait()
        same(matconvnet.read(path, child).layers, write.weights())
    assert child.process is None


def test_a_pickle_in_disguise_is_not_run(tmp_path, child):
    marker, path = tmp_path / "marker", tmp_path / "w.mat"
    data = pickle.dumps(write.Marker(marker))
    path.write_bytes(data)
    refused(matconvnet.read, path)
    good = write.mat(path, write.weights(), compressed=False).read_bytes()
    path.write_bytes(good[:128] + data)
    refused(lambda path: matconvnet.read(path, child), path)
    path.write_bytes(good[:128] + struct.pack("<II", 14, len(data)) + data)
    refused(lambda path: matconvnet.read(path, child), path)
    assert not marker.exists()


@pytest.mark.parametrize("compressed", [True, False])
def test_a_damaged_file_is_read_or_refused(tmp_path, child, compressed):
    path, chance = tmp_path / "w.mat", random.Random(0)
    good = write.mat(path, write.weights(), MEAN[None, None], compressed=compressed).read_bytes()
    for _ in range(60):
        data = bytearray(good)
        for _ in range(chance.choice((1, 1, 3))):
            data[chance.randrange(128, len(data))] = chance.randrange(256)
        path.write_bytes(data[: chance.choice((len(data), len(data), chance.randrange(len(data))))])
        start = time.monotonic()
        try:
            matconvnet.read(path, child)
        except WeightError as error:
            assert error.what.isprintable()
        assert time.monotonic() - start < 3
