"""State dicts of the generator's ports: every spelling of the keys, and what is refused."""

import pickle
import random
import time
import zipfile

import numpy as np
import pytest

from inverse_set.convert import torch_file
from inverse_set.convert.isolated import Child
from inverse_set.errors import WeightError
from tests.convert import other_files as write
from tests.convert.test_arrays import refused, same
from tests.convert.test_matconvnet import library

torch = pytest.importorskip("torch", minversion="2.6")
NAMES = "defc7 defc6 defc5 deconv5 conv5_1 deconv4 conv4_1 deconv3 conv3_1 deconv2 deconv1 deconv0"
OTHER = "fc7 fc6 fc5 tconv5_0 tconv5_1 tconv4_0 tconv4_1 tconv3_0 tconv3_1 tconv2 tconv1 tconv0"
LAYERS = write.generator_weights(NAMES.split())


@pytest.fixture(scope="module")
def read():
    with Child("torch") as child:
        yield lambda path: torch_file.read(path, child)


@pytest.mark.parametrize("key", ["{}.{}", "{}.1.{}", "module.{}.{}", "G.{}.1.{}", "module.G.{}.{}"])
@pytest.mark.parametrize("names", [NAMES, OTHER])
@pytest.mark.parametrize("wrap", [None, "state_dict"])
def test_every_spelling(tmp_path, read, key, names, wrap):
    layers = dict(zip(names.split(), LAYERS.values(), strict=True))
    same(read(write.pt(tmp_path / "g.pt", layers, key, wrap)), LAYERS)


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_and_the_older_format(tmp_path, read, dtype, legacy):
    path = write.pt(tmp_path / "g.pt", LAYERS, dtype=dtype, legacy=legacy)
    rounded = {
        name: tuple(torch.tensor(a).to(dtype).float().numpy() for a in pair)
        for name, pair in LAYERS.items()
    }
    same(read(path), rounded)


def test_torch_lays_kernels_out_as_caffe(tmp_path):
    linear, up = torch.nn.Linear(3, 2), torch.nn.ConvTranspose2d(4, 5, (2, 3))
    modules = torch.nn.ModuleDict({"defc7": linear, "deconv5": up})
    torch.save(modules.state_dict(), tmp_path / "g.pt")
    found = torch_file.read(tmp_path / "g.pt")
    assert found["defc7"][0].shape == (2, 3) and found["deconv5"][0].shape == (4, 5, 2, 3)
    np.testing.assert_array_equal(found["deconv5"][0], up.weight.detach().numpy())


def test_views_that_are_not_contiguous(tmp_path, read):
    kernel = torch.arange(6.0).reshape(2, 3)
    torch.save({"defc7.weight": kernel.T, "defc7.bias": kernel[:, 1]}, tmp_path / "g.pt")
    same(read(tmp_path / "g.pt"), {"defc7": (kernel.T.numpy(), np.array([1.0, 4.0]))})


def test_other_layers_are_handed_on(tmp_path, read):
    layers = {"fc6": LAYERS["defc6"], "extra": LAYERS["deconv0"]}
    same(read(write.pt(tmp_path / "g.pt", layers)), layers)


W, B = torch.zeros(2, 3), torch.zeros(2)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"defc7.weight": W, "defc7.bias": B, "defc7.1.bias": B}, ["layer defc7", "are the same"]),
        ({"tconv0.weight": W, "tconv0.bias": B, "deconv0.bias": B}, ["layer deconv0", "the same"]),
        ({"\x1bd.weight": W, "\x1bd.1.weight": W}, ["layer ?d", "?d.1.weight are the same"]),
        ({"defc7.weight": W}, ["layer defc7", "there is no bias"]),
        ({"defc7.weight": W.int(), "defc7.bias": B}, ["layer defc7.weight", "torch.int32"]),
        ({"defc7.weight": W.to_sparse(), "defc7.bias": B}, ["expected a dense tensor"]),
        ({"defc7.weight": W.to("meta"), "defc7.bias": B}, ["expected a dense tensor"]),
        ({"defc7.weight": W + torch.nan, "defc7.bias": B}, ["not finite"]),
        ({"defc7.weight": W[None], "defc7.bias": B}, ["rank 2 or 4"]),
        ({"defc7.weight": torch.zeros(1).expand(9999, 9999)}, ["larger than the file"]),
        ({"a.running_mean": B}, ["expected weights and biases"]),
        ({"weight": W, "bias": B}, ["a layer has the name ''"]),
        ({"defc7.weight": [1.0]}, ["expected tensors by name, has list"]),
        ({3: W}, ["expected tensors by name"]),
        ({"epoch": 3}, ["expected tensors by name, has int"]),
        ({}, ["no weights"]),
        (W, ["expected a state dict, has Tensor"]),
        (torch.nn.Linear(2, 3), ["a pickled torch.nn.modules.linear.Linear, not a plain state"]),
    ],
)
def test_other_contents_are_refused(tmp_path, read, content, words):
    torch.save(content, tmp_path / "g.pt")
    refused(read, tmp_path / "g.pt", *words)


def test_a_whole_model_says_what_to_save(tmp_path, read):
    for content in (torch.nn.Linear(2, 3), {"model": torch.nn.Linear(2, 3)}):
        torch.save(content, tmp_path / "g.pt")
        error = refused(read, tmp_path / "g.pt", "torch.nn.modules.linear.Linear")
        assert "if you trust the file" in error.remedy and "state_dict()" in error.remedy
    (tmp_path / "g.pt").write_bytes(b"\x80\x02no pickle")
    assert "download" in refused(read, tmp_path / "g.pt", "damaged, or not").remedy


def test_a_pickle_in_disguise_is_not_run(tmp_path, read):
    marker, path = tmp_path / "marker", tmp_path / "g.pt"
    path.write_bytes(pickle.dumps(write.Marker(marker)))
    refused(read, path, "not a plain state dict")
    for legacy in (True, False):
        content = {"defc7.weight": write.Marker(marker)}
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        error = refused(read, path, "not a plain state dict")
        assert "weights_only" not in str(error)
    assert not marker.exists()


def test_an_archive_that_inflates_is_refused(tmp_path, read):
    path = write.pt(tmp_path / "g.pt", {"defc7": (np.zeros((9000, 9000), "f4"), np.zeros(9000))})
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "b", "w", 8) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    refused(read, tmp_path / "b")


def test_only_regular_files_are_opened(tmp_path, read):
    for path in (tmp_path, "/dev/zero"):
        refused(read, path, "not a regular file")
    refused(read, tmp_path / "none", "No such file")


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("__version__ = '2.5.1+cpu'", "torch 2.6 or later, has 2.5.1+cpu"),
        ("raise ImportError", "takes torch, which is not installed"),
    ],
)
def test_an_old_torch_or_none(tmp_path, monkeypatch, code, word):
    library(tmp_path / "lib", monkeypatch, "torch", code)
    path = write.pt(tmp_path / "g.pt", LAYERS)
    assert "install torch" in refused(torch_file.read, path, word).remedy


@pytest.mark.parametrize("legacy", [True, False])
def test_a_damaged_file_is_read_or_refused(tmp_path, read, legacy):
    path, chance = tmp_path / "g.pt", random.Random(0)
    layers = {name: LAYERS[name] for name in ("defc7", "deconv5")}
    good = write.pt(path, layers, legacy=legacy).read_bytes()
    for _ in range(60):
        data = bytearray(good)
        for _ in range(chance.choice((1, 3, 9))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data[: chance.choice((len(data), len(data), chance.randrange(len(data))))])
        start = time.monotonic()
        try:
            read(path)
        except WeightError as error:
            assert error.what.isprintable()
        assert time.monotonic() - start < 5
