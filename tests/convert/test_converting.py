"""Converting a released file: what is written, what is refused, and that nothing is half done."""

import hashlib
import json
import os
import signal
import struct
import subprocess
import sys

import numpy as np
import pytest
import safetensors
from PIL import Image

from inverse_set import cli, disk, errors
from inverse_set.convert import arrange, converting, natural, weight_file
from inverse_set.errors import UserError, WeightError
from inverse_set.models import caffenet, certificate, pixels, weights, zoo
from inverse_set.models.classifier import Conv, Dense, Norm, Pool
from inverse_set.models.generator import Deconv, Plan
from tests.convert import caffe_files, other_files, prototxts

MIB = 1 << 20
CLASSES = {"caffenet": 10, "alexnet": 10, "places205": 7}
SMALL = 99  # pixels a side: every pooling divides, and 2x2 positions are left for fc6
KEPT = b"what was there before"


def small_plan(classes, norm_first=False):
    """The classifiers with few channels; the fc inputs divide by 6 as the .mat writer wants."""
    pairs = [[Norm(f"norm{i}"), Pool(f"pool{i}")][:: 1 if norm_first else -1] for i in (1, 2)]
    return (
        Conv("conv1", 8, 11, 4),
        *pairs[0],
        Conv("conv2", 10, 5, 1, 2, 2),
        *pairs[1],
        Conv("conv3", 14, 3, 1, 1),
        Conv("conv4", 16, 3, 1, 1, 2),
        Conv("conv5", 12, 3, 1, 1, 2),
        Pool("pool5"),
        Dense("fc6", 24),
        Dense("fc7", 30),
        Dense("fc8", classes),
    )


SMALL_GENERATOR = Plan(
    dense=(("defc7", 26), ("defc6", 28), ("defc5", 64)),
    spatial=4,
    deconvs=(
        Deconv("deconv5", 5),
        Deconv("conv5_1", 6, 3, 1, 1),
        Deconv("deconv4", 5),
        Deconv("conv4_1", 5, 3, 1, 1),
        Deconv("deconv3", 4),
        Deconv("conv3_1", 4, 3, 1, 1),
        Deconv("deconv2", 3),
        Deconv("deconv1", 2),
        Deconv("deconv0", 3),
    ),
)


@pytest.fixture
def narrow(monkeypatch):
    """Networks with the layers of the full-size ones and hardly any channels."""
    plans = {
        name: small_plan(classes, norm_first=name == "alexnet") for name, classes in CLASSES.items()
    }
    monkeypatch.setattr(caffenet, "CLASSIFIERS", plans)
    monkeypatch.setattr(caffenet, "FC6_GENERATOR", SMALL_GENERATOR)
    monkeypatch.setattr(caffenet, "SIZE", SMALL)
    monkeypatch.setattr(caffenet, "CODES", 24)
    monkeypatch.setattr(
        caffenet, "labels", lambda name: tuple(f"class {i}" for i in range(CLASSES[name]))
    )


def random_layers(network, seed=0):
    """{layer: (kernel, bias)} in Caffe's axes, scaled so that no activation explodes."""
    random, layers = np.random.default_rng(seed), {}
    for name, (kernel, bias) in arrange.expected(network).items():
        scale = np.float32((2 / np.prod(kernel[1:])) ** 0.5)
        values = random.standard_normal(kernel, "f4") * scale
        layers[name] = values, random.standard_normal(bias, "f4")
    return layers


def kind(network, kernel):
    if kernel.ndim == 2:
        return "inner_product"
    return "deconvolution" if network == "fc6_generator" else "convolution"


def caffemodel(path, network="caffenet", layers=None, layout="v2", order=True, **how):
    """Writes a file; order: with its pooling and its normalisation, as Caffe does."""
    layers = random_layers(network) if layers is None else layers
    listed = [(name, kind(network, arrays[0]), list(arrays)) for name, arrays in layers.items()]
    if order:
        kinds = {Pool: "pooling", Norm: "lrn"}
        plan = caffenet.CLASSIFIERS.get(network, ())
        listed += [(one.name, kinds[type(one)], []) for one in plan if type(one) in kinds]
    return caffe_files.write(path, listed, layout, **how)


def result(path):
    """(record, tensors, the bytes of the tensors) of a weight file, by safetensors' own reader."""
    with safetensors.safe_open(path, "numpy") as file:
        record = json.loads(file.metadata()["record"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    data = path.read_bytes()
    return record, tensors, data[8 + struct.unpack("<Q", data[:8])[0] :]


def failing(tmp_path, source, network="caffenet", **how):
    """The error of a conversion that must leave the folder of its destination as it was."""
    destination = tmp_path / "out" / "net.safetensors"
    destination.parent.mkdir(exist_ok=True)
    destination.write_bytes(KEPT)
    with pytest.raises(UserError) as caught:
        converting.convert(source, destination, network, **how)
    assert destination.read_bytes() == KEPT
    assert [path.name for path in destination.parent.iterdir()] == [destination.name]
    return caught.value


# What is written.


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("network", CLASSES)
def test_a_classifier_in_our_axes(tmp_path, network):
    layers, path = random_layers(network), tmp_path / "net.safetensors"
    converting.convert(caffemodel(tmp_path / "net.caffemodel", network), path, network)
    tensors = result(path)[1]
    for name, (kernel, bias) in layers.items():
        if name == "fc6":
            kernel = kernel.reshape(-1, 12, 2, 2).transpose(0, 2, 3, 1).reshape(len(kernel), -1)
        ours = kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel.T
        np.testing.assert_array_equal(tensors.pop(f"{name}/kernel"), ours)
        np.testing.assert_array_equal(tensors.pop(f"{name}/bias"), bias)
    assert not tensors


@pytest.mark.usefixtures("narrow")
def test_a_generator_in_our_axes(tmp_path):
    layers, path = random_layers("fc6_generator"), tmp_path / "net.safetensors"
    source = caffemodel(tmp_path / "g.caffemodel", "fc6_generator")
    converting.convert(source, path, "fc6_generator")
    tensors = result(path)[1]
    for name, (kernel, bias) in layers.items():
        if name == "defc5":
            kernel = kernel.reshape(4, 4, 4, -1).transpose(1, 2, 0, 3).reshape(kernel.shape)
            bias = bias.reshape(4, 4, 4).transpose(1, 2, 0).ravel()
        flipped = kernel[..., ::-1, ::-1]
        ours = flipped.transpose(2, 3, 0, 1) if kernel.ndim == 4 else kernel.T
        np.testing.assert_array_equal(tensors.pop(f"{name}/kernel"), ours)
        np.testing.assert_array_equal(tensors.pop(f"{name}/bias"), bias)
    assert not tensors


@pytest.mark.usefixtures("narrow")
def test_the_record(tmp_path):
    source, path = caffemodel(tmp_path / "net.caffemodel"), tmp_path / "deep" / "net.safetensors"
    returned = converting.convert(source, path, "caffenet")
    record, _, data = result(path)
    assert (
        record
        == returned
        == {
            "network": "caffenet",
            "source": "net.caffemodel",
            "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
            "dtype": "fp32",
            "mean_of": "ImageNet",
            "mean": list(caffenet.MEAN),
            "order": ["pooling", "normalisation"] * 2 + ["pooling"],
            "result_sha256": hashlib.sha256(data).hexdigest(),
        }
    )
    assert weights.read(path, "").record == record
    again = tmp_path / "again.safetensors"
    converting.convert(source, again, "caffenet")
    assert again.read_bytes() == path.read_bytes()
    generator = converting.convert(
        caffemodel(tmp_path / "g.caffemodel", "fc6_generator"), path, "fc6_generator"
    )
    assert "mean" not in generator and result(path)[0] == generator
    assert [found.name for found in path.parent.iterdir()] == [path.name]


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize(
    "network",
    ["caffenet", pytest.param("fc6_generator", marks=pytest.mark.slow)],  # needs torch
)
def test_every_format_gives_the_same_bytes(tmp_path, network):
    layers, sources = random_layers(network), {}
    for layout in ("v2", "v1", "v0") if network == "caffenet" else ("v2", "v1"):
        sources[layout] = caffemodel(tmp_path / f"{layout}.caffemodel", network, layout=layout)
    for name in ("<f4", "<f8"):
        sources[name] = caffemodel(tmp_path / f"raw{name}.caffemodel", network, raw=name)
    sources["double"] = caffemodel(tmp_path / "d.caffemodel", network, double=True)
    sources["unpacked"] = caffemodel(tmp_path / "u.caffemodel", network, packed=False)
    sources["npz"] = other_files.npz(tmp_path / "net.npz", other_files.named(layers))
    backwards = dict(reversed(other_files.named(layers, ".weight", ".bias").items()))
    sources["safetensors"] = other_files.safetensors(tmp_path / "net.safetensors", backwards)
    if network == "caffenet":
        pytest.importorskip("scipy")
        sources["mat"] = other_files.mat(tmp_path / "net.mat", layers)
        sources["net"] = other_files.mat(tmp_path / "whole.mat", layers, net=True)
    else:
        pytest.importorskip("torch", minversion="2.6")
        sources["pt"] = other_files.pt(tmp_path / "net.pt", layers)
    found = {}
    for name, source in sources.items():
        path = tmp_path / "out.safetensors"
        record = converting.convert(source, path, network)
        found[name] = result(path)[2]
        assert record["result_sha256"] == hashlib.sha256(found[name]).hexdigest(), name
        assert record["source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest(), name
    assert {name for name in found if found[name] != found["v2"]} == set()


@pytest.mark.usefixtures("narrow")
def test_endings_in_capitals(tmp_path):
    source = caffemodel(tmp_path / "NET.CAFFEMODEL")
    assert converting.convert(source, tmp_path / "net.safetensors", "caffenet")


@pytest.mark.usefixtures("narrow")
def test_half_precision(tmp_path):
    source = caffemodel(tmp_path / "net.caffemodel")
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    converting.convert(source, whole, "caffenet")
    record = converting.convert(source, half, "caffenet", dtype="fp16")
    found, tensors, data = result(half)
    assert found == record and record["dtype"] == "fp16"
    assert record["result_sha256"] == hashlib.sha256(data).hexdigest()
    assert 2 * len(data) == len(result(whole)[2])
    for name, value in result(whole)[1].items():
        assert tensors[name].dtype == np.float16
        np.testing.assert_array_equal(tensors[name], value.astype(np.float16))
    assert all(v.dtype == np.float32 for v in weights.read(half, "").tensors.values())


@pytest.mark.usefixtures("narrow")
def test_a_source_in_half_precision(tmp_path):
    source, path = tmp_path / "net.caffemodel", tmp_path / "net.safetensors"
    converting.convert(caffemodel(source, raw="<f2"), path, "caffenet")
    found = result(path)[1]
    converting.convert(caffemodel(source), path, "caffenet")
    for name, value in result(path)[1].items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], value.astype(np.float16))


@pytest.mark.usefixtures("narrow")
def test_what_half_precision_cannot_hold_is_refused(tmp_path):
    layers = random_layers("caffenet")
    layers["fc7"][0][3, 5] = 7e4
    source = caffemodel(tmp_path / "net.caffemodel", layers=layers)
    error = failing(tmp_path, source, dtype="fp16")
    assert error.code == errors.WEIGHTS and error.remedy == "give --dtype=fp32"
    assert "fc7/kernel" in error.what and "fp16" in error.what
    converting.convert(source, tmp_path / "net.safetensors", "caffenet")


# The mean.


def mean_image(colour):
    image = np.zeros((3, 4, 5)) + np.reshape(colour, (3, 1, 1))
    return image + np.array([2, -1, 0, 0, -1])  # a picture, of this mean colour


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize(
    "name", ["m.binaryproto", "image.npy", "colour.npy", "m.mat", "ilsvrc.mat"]
)
def test_a_mean_picture_becomes_its_colour(tmp_path, name):
    colour, path = np.array([90.0, 100.0, 110.0]), tmp_path / name
    if name.endswith(".binaryproto"):
        caffe_files.write_mean(path, mean_image(colour))
    elif name.endswith(".npy"):
        np.save(path, mean_image(colour) if name == "image.npy" else colour)
    elif name == "ilsvrc.mat":
        pytest.importorskip("scipy")
        other_files.mat(path, {}, layers=0.0, image_mean=mean_image(colour).transpose(1, 2, 0))
    else:
        pytest.importorskip("scipy")
        rgb = mean_image(colour)[::-1].transpose(1, 2, 0)
        other_files.mat(path, other_files.weights(), rgb)
    source = caffemodel(tmp_path / "net.caffemodel")
    record = converting.convert(source, tmp_path / "n.safetensors", "caffenet", mean=path)
    assert record["mean_of"] == name
    np.testing.assert_allclose(record["mean"], colour, rtol=1e-6)
    network = zoo.full_size("caffenet", weights.read(tmp_path / "n.safetensors", ""))
    np.testing.assert_allclose(network.pixels.mean, colour, rtol=1e-6)


@pytest.mark.usefixtures("narrow")
def test_the_mean_in_the_source_unless_another_is_given(tmp_path):
    pytest.importorskip("scipy")
    bgr = np.array([90.0, 100.0, 110.0])
    source = other_files.mat(tmp_path / "net.mat", random_layers("caffenet"), bgr[None, None, ::-1])
    record = converting.convert(source, tmp_path / "n.safetensors", "caffenet")
    assert record["mean_of"] == "source"
    np.testing.assert_allclose(record["mean"], bgr, rtol=1e-6)
    np.save(tmp_path / "other.npy", np.array([1.0, 2.0, 3.0]))
    record = converting.convert(
        source, tmp_path / "n.safetensors", "caffenet", mean=str(tmp_path / "other.npy")
    )
    assert record["mean_of"] == "other.npy" and record["mean"] == [1.0, 2.0, 3.0]


@pytest.mark.usefixtures("narrow")
def test_no_mean_is_refused(tmp_path):
    source = caffemodel(tmp_path / "net.caffemodel")
    (tmp_path / "mean.h5").write_bytes(b"\x01")
    np.save(tmp_path / "grey.npy", np.zeros((1, 4, 4)))
    np.save(tmp_path / "nan.npy", np.full(3, np.nan))
    caffe_files.write_mean(tmp_path / "grey.binaryproto", np.zeros((1, 4, 4)))
    for name, word in (
        ("mean.h5", "ending"),
        ("grey.npy", "(1, 4, 4)"),
        ("nan.npy", "not finite"),
        ("grey.binaryproto", "expected 3 channels, has 1"),
        ("none.npy", "No such file"),
        ("none.binaryproto", "No such file"),
    ):
        error = failing(tmp_path, source, mean=tmp_path / name)
        assert error.code == errors.WEIGHTS and name in error.what and word in error.what


# What is refused.


def without(layers, name):
    return {key: value for key, value in layers.items() if key != name}


def reshaped(layers, name, kernel=None, bias=None):
    old = layers[name]
    new = [old[0] if kernel is None else np.zeros(kernel, "f4")]
    return layers | {name: (*new, old[1] if bias is None else np.zeros(bias, "f4"))}


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: without(a, "conv3"), ["layer conv3 is expected and not there"]),
        (
            lambda a: a | {"prob": (np.zeros((2, 2), "f4"), np.zeros(2, "f4"))},
            ["layer prob is there and not expected"],
        ),
        (
            lambda a: without(a, "fc8") | {"fc8_new": a["fc8"]},
            ["layer fc8 is expected", "layer fc8_new is there"],
        ),
        (
            lambda a: reshaped(a, "fc6", (48, 24)),
            ["layer fc6: expected (24, 48) and (24,), file has (48, 24) and (24,)"],
        ),
        (lambda a: reshaped(a, "conv2", (10, 8, 5, 5)), ["expected (10, 4, 5, 5)"]),
        (lambda a: reshaped(a, "conv1", bias=(9,)), ["layer conv1", "file has (8, 3, 11, 11)"]),
        (lambda a: a | {"fc7": a["fc7"][:1]}, ["layer fc7", "file has (30, 24)"]),
        (lambda a: a | {"fc7": (*a["fc7"], a["fc7"][1])}, ["layer fc7", "(30,) and (30,)"]),
    ],
)
def test_every_layer_and_no_other(tmp_path, change, words):
    for layout in ("v2", "v0"):
        source = caffemodel(
            tmp_path / "net.caffemodel", layers=change(random_layers("caffenet")), layout=layout
        )
        error = failing(tmp_path, source)
        assert isinstance(error, WeightError) and error.code == errors.WEIGHTS
        assert error.what.startswith(f"{source}: this is not caffenet: ")
        for word in words if layout == "v2" else words[:0]:
            assert word in error.what
        assert "check that the file is of caffenet" in error.remedy


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize(
    ("holds", "asked"),
    [
        ("places205", "caffenet"),
        ("caffenet", "places205"),
        ("fc6_generator", "caffenet"),
        ("caffenet", "fc6_generator"),
    ],
)
@pytest.mark.parametrize("layout", ["v2", "v1"])
def test_a_file_of_another_network_is_named(tmp_path, holds, asked, layout):
    source = caffemodel(tmp_path / "net.caffemodel", holds, layout=layout)
    error = failing(tmp_path, source, asked)
    assert f"this is not {asked}" in error.what and error.remedy == f"it fits --network={holds}"
    assert len(error.what) < 1000


# CaffeNet and AlexNet have the same arrays; the order of what lies between them differs.


def ordered(folder, network, kind):
    if kind != "mat":
        return caffemodel(folder / "net.caffemodel", network, layout=kind)
    pytest.importorskip("scipy")
    kinds = {Pool: "pool", Norm: "normalize"}
    plan = caffenet.CLASSIFIERS[network]
    between = {one.name: kinds[type(one)] for one in plan if type(one) in kinds}
    return other_files.mat(folder / "net.mat", random_layers(network) | between)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("kind", ["v2", "v1", "v0", "mat"])
@pytest.mark.parametrize(
    ("holds", "asked"), [("caffenet", "alexnet"), ("alexnet", "caffenet"), ("alexnet", "places205")]
)
def test_the_order_of_pooling_and_normalisation_tells(tmp_path, kind, holds, asked):
    source, path = ordered(tmp_path, holds, kind), tmp_path / "net.safetensors"
    error = failing(tmp_path, source, asked)
    assert f"this is not {asked}" in error.what and error.remedy == f"it fits --network={holds}"
    if asked != "places205":
        wanted = "pooling, normalisation, pooling, normalisation, pooling"
        other = "normalisation, pooling, normalisation, pooling, pooling"
        wanted, other = (wanted, other) if asked == "caffenet" else (other, wanted)
        assert error.what.endswith(f"expected {wanted}; file has {other}")
    record = converting.convert(source, path, holds)
    assert record["order"] == list(arrange.order(holds))


@pytest.mark.usefixtures("narrow")
def test_an_order_of_no_network(tmp_path):
    layers = [(name, kind("", a[0]), list(a)) for name, a in random_layers("caffenet").items()]
    layers.append(("pool1", "pooling", []))
    source = caffe_files.write(tmp_path / "net.caffemodel", layers)
    error = failing(tmp_path, source)
    assert error.what.endswith("file has pooling") and "check that the file" in error.remedy


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("network", CLASSES)
def test_a_file_that_does_not_tell_is_taken_on_trust(tmp_path, capsys, network):
    path = tmp_path / "net.safetensors"
    source = caffemodel(tmp_path / "net.caffemodel", network, order=False)
    code, _, err = command(capsys, source, path, f"--network={network}")
    assert code == 0 and result(path)[0]["order"] == []
    assert f"that it holds {network} is taken on trust" in err
    source = caffemodel(tmp_path / "net.caffemodel", network)
    code, _, err = command(capsys, source, path, f"--network={network}", "--overwrite")
    assert code == 0 and "on trust" not in err


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_failure_half_way_leaves_nothing(tmp_path, value):
    """The last layer is read when all others have been written."""
    layers = random_layers("caffenet")
    layers["fc8"][0][-1, -1] = value
    error = failing(tmp_path, caffemodel(tmp_path / "net.caffemodel", layers=layers))
    assert error.layer == "fc8" and error.offset is not None


@pytest.mark.usefixtures("narrow")
def test_what_is_no_weight_file_is_refused(tmp_path):
    good = caffemodel(tmp_path / "good.caffemodel").read_bytes()
    (tmp_path / "cut.caffemodel").write_bytes(good[:-9])
    (tmp_path / "empty.caffemodel").write_bytes(b"")
    (tmp_path / "page.caffemodel").write_bytes(b"<!DOCTYPE html>" * 50)
    (tmp_path / "net.h5").write_bytes(good)
    (tmp_path / "net").write_bytes(good)
    (tmp_path / "folder.caffemodel").mkdir()
    for name, word in (
        ("cut", "the message around it"),
        ("empty", "an empty file"),
        ("page", "a web page"),
        ("folder", "not a regular file"),
        ("none", "No such file"),
    ):
        error = failing(tmp_path, tmp_path / f"{name}.caffemodel")
        assert error.code == errors.WEIGHTS and f"{name}.caffemodel" in error.what
        assert word in error.what
    for name in ("net.h5", "net"):
        error = failing(tmp_path, tmp_path / name)
        assert error.code == errors.WEIGHTS and "not known" in error.what
        assert ".caffemodel, .mat, .pt" in error.remedy
    error = failing(tmp_path, tmp_path / "good.caffemodel", "vgg16")
    assert error.code == errors.USAGE and "caffenet, alexnet" in error.remedy


@pytest.mark.usefixtures("narrow")
def test_a_converted_file_is_not_converted_again(tmp_path):
    path = tmp_path / "net.safetensors"
    converting.convert(caffemodel(tmp_path / "net.caffemodel"), path, "caffenet")
    assert "expected (8, 3, 11, 11)" in failing(tmp_path, path).what


@pytest.mark.usefixtures("narrow")
def test_a_disk_that_refuses(tmp_path):
    source = caffemodel(tmp_path / "net.caffemodel")
    (tmp_path / "file").write_bytes(KEPT)
    (tmp_path / "folder.safetensors").mkdir()
    for place in (tmp_path / "file" / "net.safetensors", tmp_path / "folder.safetensors"):
        with pytest.raises(UserError, match="cannot write to"):
            converting.convert(source, place, "caffenet")
    assert not list(tmp_path.glob("**/*.tmp-*"))


# Natural pictures.


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder of 25 small smooth pictures, and things that are none."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(3)
    (folder / "more").mkdir()
    for i in range(25):
        colours = random.integers(0, 256, (3, 4, 3), np.uint8)
        image = Image.fromarray(colours).resize((40, 30), Image.Resampling.BICUBIC)
        place = folder / "more" if i % 2 else folder
        image.convert("L" if i == 7 else "RGB").save(place / f"{i:02}.{'PNG' if i % 3 else 'png'}")
    (folder / "00a.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    (folder / "00b.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_pictures_are_squeezed_and_sorted(photographs):
    images = natural.pictures(photographs)
    assert images.shape == (25, 256, 256, 3) and images.dtype == np.uint8
    first = Image.open(sorted(photographs.rglob("[0-9][0-9].*"))[0]).convert("RGB")
    squeezed = np.asarray(first.resize((256, 256), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(images[0], squeezed)
    np.testing.assert_array_equal(natural.pictures(photographs), images)
    assert len(natural.pictures(photographs, most=24)) in (22, 23, 24)


def corner(folder, name, image, **how):
    """The first pixel of a picture, saved under the name and read again."""
    image.save(folder / name, **how)
    return natural._picture(folder / name)[0, 0].tolist()


def test_pictures_of_every_mode(tmp_path):
    deep = np.full((4, 4), 30000, np.uint16)
    assert corner(tmp_path, "deep.png", Image.fromarray(deep)) == [117] * 3  # 30000 / 257
    for value in (0, 65535):
        white = Image.fromarray(np.full((4, 4), value, np.uint16))
        assert corner(tmp_path, "white.png", white) == [value // 257] * 3
    red, half = (200, 0, 0), (200, 0, 0, 128)
    palette = Image.new("RGB", (4, 4), red).quantize(4)
    assert corner(tmp_path, "palette.png", palette) == list(red)
    assert corner(tmp_path, "hole.png", palette, transparency=0) == [255] * 3
    assert corner(tmp_path, "one.png", Image.new("1", (4, 4), 1)) == [255] * 3
    assert corner(tmp_path, "grey.png", Image.new("L", (4, 4), 77)) == [77] * 3
    assert corner(tmp_path, "la.png", Image.new("LA", (4, 4), (77, 255))) == [77] * 3
    assert corner(tmp_path, "clear.png", Image.new("LA", (4, 4), (77, 0))) == [255] * 3
    assert corner(tmp_path, "rgba.png", Image.new("RGBA", (4, 4), half)) == [227, 127, 127]
    ink = corner(tmp_path, "cmyk.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)))
    np.testing.assert_allclose(ink, [255, 0, 0], atol=3)


@pytest.mark.parametrize("name", ["turned.jpg", "turned.png", "turned.webp"])
def test_pictures_are_turned_as_their_camera_was(tmp_path, name):
    """Stored lying on its left side: what is left there is up."""
    lying = Image.new("L", (64, 32))
    lying.paste(255, (0, 0, 32, 32))
    exif = Image.Exif()
    exif[0x0112] = 6
    lying.convert("RGB").save(tmp_path / name, exif=exif)
    found = natural._picture(tmp_path / name)
    assert found[:100].min() > 200 and found[156:].max() < 55


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("network", ["caffenet", "alexnet"])
def test_statistics_of_pictures(tmp_path, photographs, network):
    """Against NumPy's network, and closed forms of the rest."""
    path = tmp_path / "net.safetensors"
    converting.convert(caffemodel(tmp_path / "net.caffemodel", network), path, network)
    net, images = zoo.full_size(network, weights.read(path, "")), natural.pictures(photographs)
    statistics, tensors, record = natural.measure(net, images, batch=10)
    x = pixels.from_pictures(net.pixels, images[:20] / 255.0)  # whole batches only
    wanted = {*natural.PUBLISHED, *natural.KEPT, "relu6"}
    values = certificate.forward(net.plan, net.weights, x, wanted)
    assert set(statistics) == set(natural.PUBLISHED)
    for name, (mean, deviation) in statistics.items():
        assert mean == pytest.approx(values[name].mean(), rel=1e-4, abs=1e-3), name
        assert deviation == pytest.approx(values[name].std(0).mean(), rel=1e-3), name
    assert record["pictures"] == 20 and record["quantiles"] == list(natural.QUANTILES)
    for name in natural.KEPT:
        percentiles = np.percentile(values[name], natural.QUANTILES, axis=0)
        np.testing.assert_allclose(tensors[f"natural/{name}"], percentiles, rtol=1e-3, atol=1e-2)
    codes = values["relu6"]
    upper = np.percentile(codes, 99.9, axis=0)
    np.testing.assert_allclose(tensors["codes/upper"], upper, rtol=1e-3, atol=1e-2)
    starts = sorted(map(tuple, np.round(tensors["codes/starts"], 2)))
    np.testing.assert_allclose(starts, sorted(map(tuple, np.round(codes, 2))), atol=0.02)
    distances = ((codes[:, None] - codes) ** 2).sum(-1)
    assert record["code_square"] == pytest.approx(distances.sum() / (20 * 19), rel=1e-3)


# The command.


def command(capsys, *arguments):
    """(exit code, what it printed, what it complained); never a traceback."""
    code = cli.run(["convert", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err and "internal error" not in err
    return code, out, err


@pytest.mark.usefixtures("narrow")
def test_the_command_converts(tmp_path, capsys):
    source, path = caffemodel(tmp_path / "net.caffemodel"), tmp_path / "net.safetensors"
    code, out, err = command(capsys, source, path, "--network=caffenet")
    record = result(path)[0]
    assert code == 0 and "--images=DIR" in err and "inverse-set:" not in err
    assert f"source_sha256: {record['source_sha256']}" in out
    assert f"result_sha256: {record['result_sha256']}" in out and f"written to {path}" in out
    before = path.read_bytes()
    code, _, err = command(capsys, source, path, "--network=caffenet", "--dtype=fp16")
    assert code == errors.USAGE and "already there" in err and "--overwrite" in err
    assert path.read_bytes() == before
    arguments = (source, path, "--network=caffenet", "--dtype=fp16", "--overwrite")
    assert command(capsys, *arguments)[0] == 0 and result(path)[0]["dtype"] == "fp16"


@pytest.mark.usefixtures("narrow")
def test_into_the_cache_and_from_there_into_a_model(tmp_path, capsys, monkeypatch, photographs):
    monkeypatch.setenv("INVERSE_SET_HOME", str(tmp_path / "home"))
    source = caffemodel(tmp_path / "net.caffemodel")
    code, out, err = command(capsys, source, "--network=caffenet", f"--images={photographs}")
    assert code == 0 and not err
    assert "caffenet on 20 natural pictures" in out and "-15.18 / 15.08" in out
    source = caffemodel(tmp_path / "g.caffemodel", "fc6_generator")
    code, out, err = command(capsys, source, "--network=fc6_generator")
    assert code == 0 and not err and "mean" not in out
    here = tmp_path / "home" / "weights"
    assert {path.name for path in here.iterdir()} == {
        "caffenet.safetensors",
        "fc6_generator.safetensors",
    }
    record, tensors, data = result(here / "caffenet.safetensors")
    assert record["result_sha256"] == hashlib.sha256(data).hexdigest()
    assert record["pictures"] == 20 and record["source"] == "net.caffemodel"
    model = zoo.load.__wrapped__("caffenet")
    assert model.starts.shape == (20, 24) and model.codes.upper.shape == (24,)
    assert model.subject.natural["fc8"].shape == (len(natural.QUANTILES), 10)
    kernel = random_layers("caffenet")["fc7"][0].T
    np.testing.assert_array_equal(tensors["fc7/kernel"], kernel)


@pytest.mark.usefixtures("narrow")
def test_pictures_of_a_network_in_half_precision(tmp_path, capsys, photographs):
    path = tmp_path / "net.safetensors"
    source = caffemodel(tmp_path / "net.caffemodel")
    arguments = ("--network=caffenet", "--dtype=fp16", f"--images={photographs}")
    assert command(capsys, source, path, *arguments)[0] == 0
    record, tensors, data = result(path)
    assert record["dtype"] == "fp16" and tensors["natural/fc8"].shape == (11, 10)
    assert record["result_sha256"] == hashlib.sha256(data).hexdigest()


@pytest.mark.usefixtures("narrow")
def test_activations_that_half_precision_cannot_hold(tmp_path, capsys, photographs):
    """The weights fit, the percentiles do not: a reason, and no half-made result."""
    layers, path = random_layers("caffenet"), tmp_path / "net.safetensors"
    layers["fc8"][1][:] = 6e4
    layers["fc8"][0][:] *= 1e3
    source = caffemodel(tmp_path / "net.caffemodel", layers=layers)
    arguments = ("--network=caffenet", "--dtype=fp16", f"--images={photographs}")
    code, _, err = command(capsys, source, path, *arguments)
    assert code == errors.WEIGHTS and "--dtype=fp32" in err
    assert not path.exists()


@pytest.mark.usefixtures("narrow")
def test_a_home_folder_written_as_a_tilde(tmp_path, capsys, monkeypatch, photographs):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    caffemodel(home / "net.caffemodel")
    np.save(home / "mean.npy", np.array([1.0, 2.0, 3.0]))
    (home / "pictures").symlink_to(photographs)
    arguments = ("--network=caffenet", "--mean=~/mean.npy", "--images=~/pictures")
    code, _, err = command(capsys, "~/net.caffemodel", "~/net.safetensors", *arguments)
    assert code == 0, err
    record = result(home / "net.safetensors")[0]
    assert record["mean"] == [1, 2, 3] and record["pictures"] == 20
    code, _, err = command(capsys, "~nobody-here/x.caffemodel", "--network=caffenet")
    assert code == errors.WEIGHTS and "no such file" in err


HOSTILE = "\x1b]0;net\x07\x9b2J\n"


@pytest.mark.usefixtures("narrow")
def test_names_never_reach_the_terminal_raw(tmp_path, capsys):
    source = caffemodel(tmp_path / f"{HOSTILE}.caffemodel")
    np.save(tmp_path / f"{HOSTILE}.npy", np.ones(3))
    path, mean = tmp_path / f"{HOSTILE}.safetensors", f"--mean={tmp_path / HOSTILE}.npy"
    good = (source, path, "--network=caffenet", mean)
    caffe_files.write(tmp_path / "bad.caffemodel", [(HOSTILE, "convolution", [np.ones(1)])])
    arrays = {f"{HOSTILE}/kernel": np.zeros(3, "i4")}
    bad = other_files.safetensors(tmp_path / f"{HOSTILE}bad.safetensors", arrays)
    for arguments, code in (
        (good, 0),
        (good, errors.USAGE),
        ((source, path, "--network=fc6_generator", "--overwrite"), errors.WEIGHTS),
        ((tmp_path / "bad.caffemodel", "--network=caffenet"), errors.WEIGHTS),
        ((bad, "--network=caffenet"), errors.WEIGHTS),
    ):
        found, out, err = command(capsys, *arguments)
        assert found == code and all(line.isprintable() for line in (out + err).splitlines())
        assert "\\x1b]0;net\\x07" in out + err


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("images", [True, False])
def test_a_signal_leaves_what_was_there(tmp_path, capsys, monkeypatch, photographs, number, images):
    """In the midst of writing: the last layers come when the first ones are on the disk."""
    source, path = caffemodel(tmp_path / "net.caffemodel"), tmp_path / "out" / "net.safetensors"
    path.parent.mkdir()
    path.write_bytes(KEPT)
    before, whole = signal.getsignal(number), weight_file.stored

    def stopped(name, *arguments):
        if name == "fc8/bias" and list(path.parent.glob("*.tmp-*")):
            signal.raise_signal(number)
        return whole(name, *arguments)

    monkeypatch.setattr(weight_file, "stored", stopped)
    arguments = ("--network=caffenet", "--overwrite") + (f"--images={photographs}",) * images
    code, _, err = command(capsys, source, path, *arguments)
    assert code == errors.INTERRUPTED and len(err.splitlines()) == 2 and "interrupted" in err
    assert [item.name for item in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == KEPT and signal.getsignal(number) is before


@pytest.mark.usefixtures("narrow")
def test_the_leftovers_of_a_killed_command_are_removed(tmp_path, capsys):
    source, path = caffemodel(tmp_path / "net.caffemodel"), tmp_path / "net.safetensors"
    dead = tmp_path / "net.safetensors.tmp-0123456789ab"
    dead.write_bytes(KEPT)
    with disk.replacing(path) as file:  # a command that lives
        file.write(KEPT)
        assert command(capsys, source, path, "--network=caffenet")[0] == 0
        assert not dead.exists() and len(list(tmp_path.glob("*.tmp-*"))) == 1
    assert path.read_bytes() == KEPT and not list(tmp_path.glob("*.tmp-*"))


def usage(tmp_path):
    """(arguments, what the complaint says) of commands that are used wrongly."""
    source, path = tmp_path / "net.caffemodel", tmp_path / "new.safetensors"
    few = tmp_path / "few"
    few.mkdir()
    Image.new("RGB", (4, 4)).save(few / "one.png")
    generator = "--network=fc6_generator"
    return (
        ((source, path), "no --network given"),
        ((source, path, "--network=vgg16"), "vgg16"),
        ((source, path, "--network=caffenet", "--dtype=int8"), "int8"),
        ((source, path, "--netwrok=caffenet"), "did you mean --network"),
        (("--network=caffenet",), "takes a source file"),
        ((source, path, path, "--network=caffenet"), "takes a source file"),
        ((source, tmp_path / "new.npz", "--network=caffenet"), "does not end in .safetensors"),
        ((source, path, generator, f"--images={few}"), "--images is of no use"),
        ((source, path, generator, f"--mean={source}"), "--mean is of no use"),
        ((source, path, "--network=caffenet", f"--images={source}"), "is not a folder"),
        ((source, path, "--network=caffenet", f"--images={few}"), "at least 20 are needed"),
    )


@pytest.mark.usefixtures("narrow")
def test_wrong_usage(tmp_path, capsys):
    caffemodel(tmp_path / "net.caffemodel")
    for arguments, words in usage(tmp_path):
        code, out, err = command(capsys, *arguments)
        assert code == errors.USAGE and words in err and not out, err
        assert err.startswith("inverse-set: ") and len(err.splitlines()) == 2, err
    assert not (tmp_path / "new.safetensors").exists()


@pytest.mark.usefixtures("narrow")
def test_bad_weights(tmp_path, capsys):
    path, large = tmp_path / "new.safetensors", random_layers("caffenet")
    large["conv1"][0][0, 0, 0, 0] = 1e6
    caffemodel(tmp_path / "places.caffemodel", "places205")
    caffemodel(tmp_path / "large.caffemodel", layers=large)
    (tmp_path / "cut.caffemodel").write_bytes(b"\x12\xff")
    (tmp_path / "net.xyz").write_bytes(b"\x01")
    for name, more, words in (
        ("places.caffemodel", [], "it fits --network=places205"),
        ("large.caffemodel", ["--dtype=fp16"], "give --dtype=fp32"),
        ("cut.caffemodel", [], "download the file again"),
        ("none.caffemodel", [], "check the path"),
        ("net.xyz", [], "known are .caffemodel"),
        ("large.caffemodel", [f"--mean={tmp_path / 'net.xyz'}"], "known are .binaryproto"),
    ):
        code, out, err = command(capsys, tmp_path / name, path, "--network=caffenet", *more)
        assert code == errors.WEIGHTS and words in err and not out, err
        assert len(err.splitlines()) == 2, err
        assert not path.exists() and not list(tmp_path.glob("*.tmp-*"))


# Full size.


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """CaffeNet in full, 244 MB; gone afterwards."""
    path = tmp_path_factory.mktemp("full") / "net.caffemodel"
    layers = prototxts.random_layers("caffenet", np.random.default_rng(7))
    yield caffe_files.write(path, list(layers), "v1")
    for left in path.parent.iterdir():
        left.unlink()


# VmHWM and not ru_maxrss: that one begins with the peak of the process that started this one.
CHILD = """
import sys, time
from inverse_set.convert import converting

def memory(key):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key))

before, start = memory("VmRSS"), time.perf_counter()
converting.convert(sys.argv[1], sys.argv[2], "caffenet")
print(memory("VmHWM") - before, time.perf_counter() - start)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="Linux tells the peak memory")
def test_memory_stays_near_the_size_of_the_file(released):
    path = released.with_name("limits.safetensors")
    found = subprocess.run(
        [sys.executable, "-c", CHILD, released, path], check=True, capture_output=True, text=True
    )
    peak, seconds = map(float, found.stdout.split())
    size = released.stat().st_size
    print(f"{size / MIB:.0f} MiB: {seconds:.1f} s, {peak / MIB:.0f} MiB of memory")
    assert 243e6 < size < 245e6
    assert peak < 1.5 * size
    assert path.stat().st_size == pytest.approx(size, rel=1e-3)
    path.unlink()


def test_the_command_at_full_size(released, capsys, photographs):
    path = released.with_name("full.safetensors")
    code, out, _ = command(capsys, released, path, "--network=caffenet", f"--images={photographs}")
    assert code == 0 and "caffenet on 20 natural pictures" in out
    network = zoo.full_size("caffenet", weights.read(path, ""))
    assert network.natural["conv5"].shape == (len(natural.QUANTILES), 13, 13, 256)
    assert network.natural["fc8"].shape == (len(natural.QUANTILES), 1000)
    assert not list(path.parent.glob("*.tmp-*"))
