"""`.caffemodel` and `.binaryproto`: what was written comes back, and nothing else gets through."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inverse_set.convert import caffemodel, wire
from inverse_set.errors import WEIGHTS, WeightError
from tests.convert import caffe_files as files
from tests.convert import mutate

LAYOUTS = ("v2", "v1", "v0")
PROTOTXT = """
input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "fc6" type: "InnerProduct" bottom: "conv1" top: "fc6"
        inner_product_param { num_output: 5 } }
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.caffemodel"


def network():
    values = np.random.default_rng(0).normal
    return [
        ("data", "data", []),
        ("conv1", "convolution", [values(size=(4, 3, 3, 3)), values(size=4)]),
        ("relu1", "relu", []),
        ("fc6", "inner_product", [values(size=(5, 144)), values(size=5)]),
    ]


def arrays(weights):
    return {name: [array.tolist() for array in layer] for name, layer in weights.items()}


def refusal(path, read=caffemodel.read):
    with pytest.raises(WeightError) as caught:
        read(path)
    assert caught.value.path == path and caught.value.code == WEIGHTS
    return caught.value


def refused(path, chunks, read=caffemodel.read):
    """`(what is wrong, layer, offset)` of a file of the given chunks."""
    error = refusal(files.save(path, chunks), read)
    return error.wrong, error.layer, error.offset


def v2(*fields, name="conv1"):
    """A V2 network of one layer: its name, then the fields."""
    named = files.text(1, name) if name is not None else []
    return files.message(100, [*named, *fields])


def in_blob(*chunks):
    return v2(*files.message(7, chunks))


VALUES = files.message(5, [np.arange(2, dtype="<f4").tobytes()])
SHAPE = files.message(7, files.message(1, [b"\x02"]))


# What was written comes back.


@pytest.mark.parametrize("legacy", (True, False))
@pytest.mark.parametrize("double", (True, False))
@pytest.mark.parametrize("packed", (True, False))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_round_trip(path, layout, packed, double, legacy):
    files.write(path, network(), layout, packed, double, legacy)
    weights = caffemodel.read(path)
    assert list(weights) == ["conv1", "fc6"]
    for name, _, written in network():
        for array, expected in zip(weights.get(name, ()), written, strict=True):
            shape = (1,) * (4 - expected.ndim) + expected.shape if legacy else expected.shape
            dtype = np.float64 if double else np.float32
            assert array.shape == shape and array.dtype == dtype
            np.testing.assert_array_equal(array, expected.astype(dtype).reshape(shape))
            assert not array.flags.writeable and array.base is not None  # a view of the file
        if name in weights:
            weights.check_finite(name)


@pytest.mark.parametrize("raw", files.RAW_TYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_as_raw_bytes(path, layout, raw):
    files.write(path, network(), layout, raw=raw)
    weights = caffemodel.read(path)
    for name, _, written in network():
        for array, expected in zip(weights.get(name, ()), written, strict=True):
            assert array.dtype == raw and array.base is not None
            np.testing.assert_array_equal(array.ravel(), expected.astype(raw).ravel())
        if name in weights:
            weights.check_finite(name)


def test_raw_bytes_as_opencv_writes_them(path, tmp_path):
    """In half precision; of a layer's two arrays and of chosen kinds of layers alone."""
    cv2 = pytest.importorskip("cv2")
    files.write(path, network())
    small = tmp_path / "small.caffemodel"
    cv2.dnn.shrinkCaffeModel(str(path), str(small), ["Convolution"])
    weights = caffemodel.read(small)
    assert weights["conv1"][0].dtype == np.float16 and weights["fc6"][0].dtype == np.float32
    for name, _, written in network():
        for array, expected in zip(weights.get(name, ()), written, strict=True):
            np.testing.assert_array_equal(array, expected.astype(np.float32).astype(array.dtype))


def test_known_raw_bytes(path):
    half = b"\x50\x02" + b"\x62\x04" + np.array([1.5, -2], "<f2").tobytes()
    double = b"\x62\x10" + np.array([1.5, -2], "<f8").tobytes()  # the type is protobuf's default
    for chunk in (half, double):
        files.save(path, in_blob(*SHAPE, chunk))
        assert arrays(caffemodel.read(path)) == {"conv1": [[1.5, -2.0]]}


def test_legacy_shapes_without_leading_ones(path):
    for numbers, shape in (([4], (1, 1, 1, 2)), ([2, 4], (1, 1, 1, 2)), ([1], (2, 1, 1, 1))):
        dims = [files.number(i, 2 if i == numbers[-1] else 1) for i in numbers]
        files.save(path, in_blob(*dims, *VALUES))
        (array,) = caffemodel.read(path)["conv1"]
        assert array.shape == shape and array.ravel().tolist() == [0, 1]


@pytest.mark.parametrize(
    "empty",
    [
        [],
        files.message(7, files.message(1, [b"\x00"])),
        files.message(7, [files.number(1, 0), files.number(1, 1 << 62)]),
        [files.number(i, 0) for i in range(1, 5)],
        [files.number(2, 3)],
        [*files.message(5, []), *files.message(7, files.message(1, [b"\x00"]))],
    ],
)
def test_a_layer_of_empty_arrays_has_no_weights(path, empty):
    other = v2(*files.message(7, empty), *files.message(7, empty), name="other")
    good = in_blob(*SHAPE, *VALUES)
    files.save(path, [*other, *good, *v2(*files.message(7, empty), name=None), *other])
    assert arrays(caffemodel.read(path)) == {"conv1": [[0.0, 1.0]]}
    assert "no layer holds weights" in refused(path, other)[0]
    partly = v2(*files.message(7, [*SHAPE, *VALUES]), *files.message(7, empty))
    wrong, layer, _ = refused(path, partly)
    assert wrong == "an array without values" and layer == "conv1"


POOLED = [("a", "convolution", [np.ones(1)]), ("b", "pooling", []), ("c", "lrn", [])]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_order_of_pooling_and_normalisation(path, layout):
    found = caffemodel.read(files.write(path, POOLED, layout)).order
    assert found == (caffemodel.POOL, caffemodel.NORM)
    found = caffemodel.read(files.write(path, POOLED[::-1] + POOLED[1:2], layout)).order
    assert found == (caffemodel.NORM, caffemodel.POOL, caffemodel.POOL)
    assert caffemodel.read(files.write(path, network(), layout)).order == ()


def test_known_bytes(path):
    """Two layers of a V1 file, byte by byte: no help from the writer."""
    values = np.array([1.5, -2], "<f4").tobytes()
    blob = b"\x08\x01\x10\x01\x18\x01\x20\x02" + b"\x2a\x08" + values
    layer = b"\x22\x02fc" + b"\x28\x0e" + b"\x32\x12" + blob
    relu = b"\x12\x06" + b"\x22\x02re" + b"\x28\x12"
    path.write_bytes(b"\x0a\x01n" + relu + b"\x12\x1a" + layer)
    assert arrays(caffemodel.read(path)) == {"fc": [[[[[1.5, -2.0]]]]]}


def test_blobs_as_many_as_there_are(path):
    layers = [("a", "convolution", [np.ones(1)]), ("b", "convolution", [np.ones(1)] * 3)]
    weights = caffemodel.read(files.write(path, layers))
    assert [len(layer) for layer in weights.values()] == [1, 3] and len(weights) == 2


def test_unknown_fields_are_skipped(path):
    unknown = [
        files.number(900, 1 << 63),
        *files.text(901, b"\xff\xff"),
        b"\x75abcd",
        b"\x79abcdefgh",
    ]
    blob = files.message(7, [*unknown, *SHAPE, *unknown, *VALUES])
    files.save(path, [*unknown, *v2(*unknown, *blob), *unknown])
    assert arrays(caffemodel.read(path)) == {"conv1": [[0.0, 1.0]]}


def test_values_in_pieces(path):
    """Protobuf lets a repeated field come in pieces, packed or not, with others between."""
    pieces = [*VALUES, b"\x2d" + np.float32(7).tobytes(), files.number(50, 1), *VALUES]
    files.save(path, in_blob(*pieces, *files.message(7, [files.number(1, 5)])))
    weights = caffemodel.read(path)
    assert arrays(weights) == {"conv1": [[0.0, 1.0, 7.0, 0.0, 1.0]]}
    weights.check_finite("conv1")
    assert not weights["conv1"][0].flags.writeable


@pytest.mark.parametrize("count", (1, 2, 15, 16, 17, 271, 272, 273, 5000))
def test_runs_of_unpacked_values_end_where_they_end(path, count):
    values = np.arange(count + 1, dtype=np.float32)
    first, last = (files.blob(part, packed=False)[-1] for part in (values[:-1], values[-1:]))
    shape = files.message(7, [files.number(1, count + 1)])
    files.save(path, in_blob(first, files.number(9, 45), last, *shape))
    np.testing.assert_array_equal(caffemodel.read(path)["conv1"][0], values)


def test_weights_of_v0_files_may_lie_around_the_v0_layer(path):
    blob = files.message(6, [*SHAPE, *VALUES])
    files.save(path, files.message(2, [*files.message(1, files.text(1, "fc6")), *blob]))
    assert arrays(caffemodel.read(path)) == {"fc6": [[0.0, 1.0]]}


def test_links_to_files_are_followed(path, tmp_path):
    files.write(path, network())
    (tmp_path / "link").symlink_to(path)
    assert list(caffemodel.read(tmp_path / "link")) == ["conv1", "fc6"]


@pytest.mark.parametrize("how", ({}, {"legacy": False}, {"packed": False}, {"double": True}))
def test_mean_round_trip(tmp_path, how):
    mean = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    found = caffemodel.read_mean(files.write_mean(tmp_path / "mean.binaryproto", mean, **how))
    assert found.dtype == np.float32 and found.flags.owndata
    np.testing.assert_array_equal(found, mean)


def test_mean_refusals(tmp_path):
    path = tmp_path / "mean.binaryproto"
    two = files.write_mean(path, np.ones((2, 3, 4, 5)))
    assert "one mean image" in refusal(two, caffemodel.read_mean).wrong
    files.write_mean(path, np.array([[[0, np.nan]]]))
    error = refusal(path, caffemodel.read_mean)
    assert (error.layer, error.offset) == (None, path.stat().st_size - 4)
    files.write_mean(path, np.array([[[0, 1e300]]]), double=True)
    assert "finite float32" in refusal(path, caffemodel.read_mean).wrong


# Another implementation reads the same.


@pytest.mark.parametrize("packed", (True, False))
@pytest.mark.parametrize("layout", ("v2", "v1"))  # OpenCV has no V0 blobs and no double_data
def test_opencv_computes_the_same_from_the_file(path, layout, packed):
    cv2 = pytest.importorskip("cv2")
    cv2.setNumThreads(1)
    files.write(path, network(), layout, packed)
    prototxt = path.with_suffix(".prototxt")
    prototxt.write_text(PROTOTXT)
    image = np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float32)
    net = cv2.dnn.readNetFromCaffe(str(prototxt), str(path))
    net.setInput(image)
    expected = net.forward()

    weights = caffemodel.read(path)
    (kernel, bias), (matrix, shift) = weights["conv1"], weights["fc6"]
    patches = np.lib.stride_tricks.sliding_window_view(image[0], (3, 3), axis=(1, 2))
    hidden = np.einsum("ihwkl,oikl->ohw", patches, kernel) + bias.reshape(-1, 1, 1)
    found = matrix.reshape(5, -1) @ np.maximum(hidden, 0).reshape(-1) + shift.reshape(-1)
    np.testing.assert_allclose(found, expected[0], rtol=1e-5, atol=1e-4)


def protobuf_network():
    """The messages of a network, as far as read here, in Google's implementation."""
    descriptors = pytest.importorskip("google.protobuf.descriptor_pb2")
    from google.protobuf import descriptor_pool, message_factory

    kinds = {"float": 2, "double": 1, "int32": 5, "int64": 3, "string": 9, "bytes": 12}
    schema = {
        "Shape": [("dim", 1, "int64", 3)],
        "Blob": [
            (n, i, "int32", 1) for i, n in enumerate(("num", "channels", "height", "width"), 1)
        ]
        + [("data", 5, "float", 3), ("shape", 7, "Shape", 1), ("double_data", 8, "double", 3)]
        + [("raw_data_type", 10, "int32", 1), ("raw_data", 12, "bytes", 1)],
        "V0": [("name", 1, "string", 1), ("blobs", 50, "Blob", 3)],
        "V1": [("layer", 1, "V0", 1), ("name", 4, "string", 1), ("blobs", 6, "Blob", 3)],
        "V2": [("name", 1, "string", 1), ("blobs", 7, "Blob", 3)],
        "Net": [("layers", 2, "V1", 3), ("layer", 100, "V2", 3)],
    }
    file = descriptors.FileDescriptorProto(name="net.proto", package="net", syntax="proto2")
    for message, fields in schema.items():
        made = file.message_type.add(name=message)
        for name, number, kind, label in fields:
            field = made.field.add(name=name, number=number, label=label)
            if kind in kinds:
                field.type = kinds[kind]
                field.options.packed = name in ("data", "dim", "double_data")
            else:
                field.type, field.type_name = 11, f".net.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("net.Net"))


def told_by_protobuf(net):
    """{name: [(shape, bytes of the values)]} of a parsed network."""
    found = {}
    for layer in [*net.layers, *net.layer]:
        inner = getattr(layer, "layer", None)
        blobs = layer.blobs or (inner.blobs if inner else ())
        told = [told_of_blob(blob) for blob in blobs]
        if any(values for _, values in told):
            found[layer.name or inner.name] = told
    return found


def told_of_blob(blob):
    legacy = ("num", "channels", "height", "width")
    shape = tuple(getattr(blob, name) if blob.HasField(name) else 1 for name in legacy)
    if blob.HasField("shape"):
        shape = tuple(blob.shape.dim)
    if blob.HasField("raw_data"):
        return shape, blob.raw_data
    values = np.array(blob.double_data) if blob.double_data else np.array(blob.data, np.float32)
    return shape, values.tobytes()


@pytest.mark.parametrize("name", [name for name in mutate.FORMATS if "caffe" in name])
def test_damaged_files_that_are_read_are_read_as_protobuf_does(name, tmp_path):
    net, draw, agreed = protobuf_network(), mutate.random.Random(2), 0
    path = mutate.FORMATS[name][0](tmp_path)
    valid = path.read_bytes()
    for case in range(400):
        data = mutate.mutated(draw, valid) if case else valid
        path.unlink()
        path.write_bytes(data)
        try:
            found = caffemodel.read(path)
        except WeightError:
            continue
        expected = told_by_protobuf(net.FromString(data))
        for layer, told in expected.items():
            for array, (shape, values) in zip(found[layer], told, strict=True):
                assert array.shape == shape
                np.testing.assert_array_equal(array.ravel(), np.frombuffer(values, array.dtype))
        assert list(found) == list(expected)
        agreed += 1
    assert agreed > 5


# What is refused, and where.


@pytest.mark.parametrize(
    ("chunks", "wrong", "layer", "offset"),
    [
        ([b"\x0a\x01n"], "no layer holds weights", None, 0),
        ([b"<html><body>no such file</body></html>"], "wire type 4", None, 0),
        ([b"\x00\x01"], "field number 0", None, 0),
        ([b"\x0a\x01n", b"\x0b"], "wire type 3", None, 3),
        ([b"\x0f"], "wire type 7", None, 0),
        ([b"\x0a\x05n"], "ends at byte 7, the message around it at 3", None, 0),
        ([b"\x0a"], "ends inside a number", None, 1),
        ([b"\x80" * 10 + b"\x01"], "more than 64 bits", None, 0),
        ([b"\x08" + b"\xff" * 9 + b"\x02"], "more than 64 bits", None, 1),
        ([files.number(100, 1)], "expected bytes", None, 0),
        ([b"\x15abcd"], "expected bytes", None, 0),
        (v2(files.number(7, 1)), "expected bytes", "conv1", 10),
        (v2(files.number(1, 1), name=None), "expected bytes", None, 3),
        (v2(*files.text(1, b"\xff"), name=None), "not UTF-8", None, 3),
        (v2(*files.text(1, "a\x1b[31m"), name=None), "unprintable", None, 3),
        (v2(*files.text(1, "a" * 1025), name=None), "a name of 1025 bytes", None, 4),
        (v2(*files.text(1, "again")), "name is given twice", "conv1", 10),
        (v2(*files.message(7, [*SHAPE, *VALUES]), name=None), "has no name", None, 0),
        (v2(*files.message(7, [*SHAPE, *VALUES]), name=""), "has no name", None, 0),
        (v2(b"\x3a\x7f"), "ends at byte 139, the message around it at 12", "conv1", 10),
        (2 * in_blob(*SHAPE, *VALUES), "second layer of this name", "conv1", 27),
    ],
)
def test_layers_refused(path, chunks, wrong, layer, offset):
    found = refused(path, chunks)
    assert wrong in found[0] and found[1:] == (layer, offset)


RAW = files.message(12, [b"abcd"])
DIMS = [files.number(1, 1)] * 33


@pytest.mark.parametrize(
    ("chunks", "wrong", "at"),
    [
        (VALUES, "without a shape", 0),
        (SHAPE, "(2,) has 2 values, the file holds 0", 0),
        ([*SHAPE, *VALUES, *VALUES], "(2,) has 2 values, the file holds 4", 0),
        ([*SHAPE, *SHAPE, *VALUES], "shape is given twice", 5),
        ([*SHAPE, files.number(1, 2), *VALUES], "shape is given in two ways", 0),
        ([files.number(1, 2), files.number(1, 2)], "num is given twice", 2),
        ([files.number(4, 3), *VALUES], "(1, 1, 1, 3) has 3 values, the file holds 2", 0),
        ([files.number(1, 0), *VALUES], "(0, 1, 1, 1) has 0 values, the file holds 2", 0),
        ([files.number(i, -1) for i in range(1, 5)], "shape (-1, -1, -1, -1)", 0),
        (files.message(7, [files.number(1, -2)]), "shape (-2,)", 0),
        (files.message(7, [files.number(1, 1 << 62)] * 2), "has 21267647932558653966", 0),
        (files.message(7, DIMS), "more than 32 axes", 66),
        (files.message(7, files.message(1, [b"\x01" * 33])), "more than 32 axes", 2),
        (files.message(7, files.message(1, [b"\x01\x81"])), "ends inside a number", 5),
        (files.message(7, [b"\x0dabcd"]), "32 bits, expected a varint or bytes", 2),
        ([files.number(7, 1)], "a varint, expected bytes", 0),
        ([b"\x0a\x00"], "bytes, expected a varint", 0),
        ([files.number(5, 1)], "a varint, expected bytes or 32 bits", 0),
        ([b"\x29abcdefgh"], "64 bits, expected bytes or 32 bits", 0),
        ([b"\x45abcd"], "32 bits, expected bytes or 64 bits", 0),
        ([b"\x2a\x05abcde"], "5 bytes are no whole number of 4-byte values", 0),
        ([b"\x42\x04abcd"], "4 bytes are no whole number of 8-byte values", 0),
        ([b"\x2dabc"], "the message around it", 0),
        ([*VALUES, b"\x42\x08abcdefgh"], "values are given in two ways", 10),
        ([*VALUES, *RAW], "values are given in two ways", 10),
        ([*SHAPE, *RAW, *RAW], "the string of values is given twice", 11),
        (
            [*SHAPE, files.number(10, 2), files.number(10, 2)],
            "type of the values is given twice",
            7,
        ),
        ([*SHAPE, files.number(10, 3), *RAW], "values of type 3, which are no floats", 0),
        ([*SHAPE, files.number(10, 1), *RAW], "(2,) has 2 values, the file holds 1", 0),
        ([*SHAPE, files.number(10, 2), *files.message(12, [b"abc"])], "whole number of 2-byte", 7),
        ([*SHAPE, b"\x65abcd"], "32 bits, expected bytes", 5),
        ([b"\x2a\xff\xff\xff\xff\x0f"], "the message around it", 0),
    ],
)
def test_blobs_refused(path, chunks, wrong, at):
    start = sum(map(len, in_blob(*chunks))) - sum(map(len, chunks))
    found = refused(path, in_blob(*chunks))
    assert wrong in found[0] and found[1:] == ("conv1", start + at)


def test_layers_of_two_layouts_are_refused(path):
    chunks = in_blob(*SHAPE, *VALUES)
    error = refused(path, [*chunks, *files.message(2, files.text(4, "fc6"))])
    assert "two layouts" in error[0] and error[2] == sum(map(len, chunks))
    inner = files.message(1, [*files.text(1, "fc6"), *files.message(50, [*SHAPE, *VALUES])])
    around = files.message(6, [*SHAPE, *VALUES])
    wrong, layer, _ = refused(path, files.message(2, [*inner, *around]))
    assert "around it" in wrong and layer == "fc6"
    wrong, layer, _ = refused(path, files.message(2, [*files.text(4, "fc6"), *inner]))
    assert "given twice" in wrong and layer == "fc6"


def test_files_that_are_none_are_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")  # opening it the plain way would wait for a writer
    (tmp_path / "empty").touch()
    (tmp_path / "loop").symlink_to("loop")
    for name in ("fifo", "empty", "loop", "absent", ".", "nul\0byte"):
        for read in (caffemodel.read, caffemodel.read_mean):
            refusal(tmp_path / name, read)
    assert "regular file" in refusal("/dev/zero").wrong


@pytest.mark.parametrize("double", (True, False))
@pytest.mark.parametrize("packed", (True, False))
@pytest.mark.parametrize("value", (np.nan, np.inf, -np.inf))
def test_a_value_that_is_not_finite_is_named(path, value, packed, double, monkeypatch):
    monkeypatch.setattr(caffemodel, "_BLOCK", 1000)
    kernel = np.ones(5000)
    kernel[[4321, 4999]] = value
    files.write(path, [("fc6", "inner_product", [kernel])], packed=packed, double=double)
    weights = caffemodel.read(path)
    with pytest.raises(WeightError) as caught:
        weights.check_finite("fc6")
    data, dtype = path.read_bytes(), np.dtype("<f8" if double else "<f4")
    assert caught.value.layer == "fc6" and str(value) in caught.value.wrong
    found = data[caught.value.offset :][: dtype.itemsize]
    assert found == np.array(value, dtype).tobytes() and data.index(found) == caught.value.offset


# Time and memory.


def test_many_fields_are_refused_soon(path):
    start = time.process_time()
    wrong, _, _ = refused(path, [b"\x08\x00" * 5_000_000])
    assert "fields" in wrong and time.process_time() - start < 5
    start = time.process_time()
    refused(path, in_blob(*[b"\x2dabcd" * 17 + b"\x35abcd" * 17] * 40_000, *SHAPE))
    assert time.process_time() - start < 5


def test_runs_are_bounded_by_their_message():
    data = b"\x2dabcd" * 40 + b"\x2dab"
    reader = wire.Reader(data)
    (run,) = reader.fields(0, 200)
    assert (run.value, run.start, run.end, run.stride) == (40, 1, 200, 5)
    with pytest.raises(wire.WireError):
        list(reader.fields(0, len(data)))


BIG = """
import sys, time
from inverse_set.convert import caffemodel
def memory(what):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) >> 10 for line in file if line.startswith(what))
before, start = memory("VmRSS"), time.process_time()
weights = caffemodel.read(sys.argv[1])
print(time.process_time() - start, memory("VmHWM") - before)
for name in weights:
    weights.check_finite(name)
print(memory("VmHWM") - before)
sum(array.sum() for array in weights["fc6"])
held = memory("VmRSS") - before
weights.release("fc6")
print(held, memory("VmRSS") - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")
@pytest.mark.parametrize("packed", (True, False))
def test_a_big_file_takes_neither_time_nor_memory(path, packed):
    kernel = np.ones((16, 1 << 20), np.float32)  # 64 MiB
    files.write(path, [("fc6", "inner_product", [kernel])], layout="v1", packed=packed)
    out = subprocess.check_output([sys.executable, "-c", BIG, path], timeout=60)
    seconds, walked, checked, held, released = map(float, out.split())
    assert seconds < 0.5
    assert walked < (8 if packed else 90) and checked < (30 if packed else 90)
    assert held > 60 and released < 30


# Whatever the bytes.


def read_or_refused(path, data, read):
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    try:
        read(path)
    except WeightError as error:
        assert error.path == path and (error.offset is None or 0 <= error.offset <= len(data))


anything = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@anything
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(path, data):
    read_or_refused(path, data, mutate.read_caffe)
    read_or_refused(path, data, caffemodel.read_mean)
    read_or_refused(path, b"".join(in_blob(data)), mutate.read_caffe)


@anything
@given(st.data())
def test_any_change_to_a_file_is_read_or_refused(path, data):
    layout = data.draw(st.sampled_from(LAYOUTS))
    packed = data.draw(st.booleans())
    files.write(path, network()[:2], layout, packed)
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(damaged)))
        count = data.draw(st.integers(0, 12))
        damaged[start : start + count] = data.draw(st.binary(max_size=12))
    read_or_refused(path, bytes(damaged), mutate.read_caffe)
