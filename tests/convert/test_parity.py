"""The ported networks against OpenCV's Caffe importer, on the same random `.caffemodel`.

Every named layer, full size, float32; at 227 every pooling divides, at 224 the last windows are
clipped.  What a mistake of the port would look like is at the end.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inverse_set.convert import converting
from inverse_set.models import caffenet, certificate, layers, pooling, weights
from inverse_set.models.classifier import Classifier, names
from inverse_set.models.generator import Generator
from tests.convert import caffe_files, prototxts

cv2 = pytest.importorskip("cv2", reason="parity is measured against OpenCV's Caffe importer")

TOLERANCE = 1e-4  # norm of the difference over the norm
VISIBLE = 1e-2  # what a mistake is at least
LAYOUTS = {"caffenet": "v1", "alexnet": "v2", "places205": "v1", "fc6_generator": "v2"}
SIDES = (227, 224)
PICTURES = 2


class Case(NamedTuple):
    """One network: {side: {layer: activations}} of OpenCV, our weights, and what was put in."""

    network: str
    reference: dict
    params: dict
    inputs: dict


def difference(found, expected):
    assert found.shape == expected.shape
    expected = np.asarray(expected, np.float64)
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def channels_last(blob):
    return blob.transpose(0, 2, 3, 1) if blob.ndim == 4 else blob


def opencv(folder, text, layer_names, x):
    """{layer: NHWC} by OpenCV's importer, its layers kept apart and its convolutions plain."""
    (folder / "net.prototxt").write_text(text)
    net = cv2.dnn.readNetFromCaffe(str(folder / "net.prototxt"), str(folder / "net.caffemodel"))
    net.enableFusion(False)
    net.enableWinograd(False)
    net.setInput(x)
    blobs = net.forward(layer_names)
    return {k: np.array(channels_last(b)) for k, b in zip(layer_names, blobs, strict=True)}


def converted(folder, network):
    path = folder / "net.safetensors"
    converting.convert(folder / "net.caffemodel", path, network)
    return weights.tree(weights.read(path, "").tensors)


def write(folder, network):
    named = prototxts.random_layers(network, np.random.default_rng(7))
    caffe_files.write(folder / "net.caffemodel", list(named), LAYOUTS[network])


def run(folder, network):
    """A `Case`; the files are gone afterwards."""
    write(folder, network)
    random, reference, inputs = np.random.default_rng(8), {}, {}
    try:
        for side in SIDES:
            x = random.uniform(-120, 120, (PICTURES, 3, side, side)).astype(np.float32)
            inputs[side] = channels_last(x)
            text, found = prototxts.classifier(network, side)
            reference[side] = opencv(folder, text, found, x)
        return Case(network, reference, converted(folder, network), inputs)
    finally:
        clean(folder)


def clean(folder):
    for path in folder.iterdir():
        path.unlink()


@pytest.fixture(scope="module", autouse=True)
def two_threads():
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    yield
    cv2.setNumThreads(before)


@pytest.fixture(scope="module", params=caffenet.CLASSIFIERS)
def case(request, tmp_path_factory):
    return run(tmp_path_factory.mktemp(request.param), request.param)


def test_every_layer_of_a_classifier(case):
    plan = caffenet.CLASSIFIERS[case.network]
    module = Classifier(plan)
    for side in SIDES:
        with jax.default_matmul_precision("highest"):
            found = jax.jit(module.apply)({"params": case.params}, case.inputs[side])
        assert list(case.reference[side]) == names(plan)
        assert set(found) == set(names(plan))
        worst = {k: difference(found[k], case.reference[side][k]) for k in found}
        print(f"{case.network} at {side}: at most {max(worst.values()):.1e}", worst)
        assert max(worst.values()) < TOLERANCE, worst


def test_ceil_mode_matters_at_224(case):
    sizes = {k: v.shape[1] for k, v in case.reference[224].items() if v.ndim == 4}
    assert sizes["conv1"] == 54 and sizes["conv2"] == 27  # floor mode would give 26


def test_the_certificate_against_both(case):
    """NumPy's float64, a third implementation."""
    plan, wanted = caffenet.CLASSIFIERS[case.network], ("norm1", "pool2", "conv4", "relu6", "fc8")
    for side in SIDES:
        found = certificate.forward(plan, case.params, case.inputs[side][:1], wanted)
        with jax.default_matmul_precision("highest"):
            flax = jax.jit(Classifier(plan).apply)({"params": case.params}, case.inputs[side][:1])
        for name in wanted:
            assert found[name].dtype == np.float64
            assert difference(case.reference[side][name][:1], found[name]) < TOLERANCE, name
            assert difference(np.asarray(flax[name]), found[name]) < 1e-5, name


def test_mistakes_in_a_classifier_show(case):
    """Each wrong in one place, from OpenCV's values of the layer before."""
    blobs, params = case.reference[227], case.params
    norm_first = case.network == "alexnet"
    right = blobs["pool1" if norm_first else "norm1"]

    def pool(x):
        return pooling.max_pool(jnp.asarray(x), 3, 2)

    def norm(x, **other):
        return pooling.local_response_norm(jnp.asarray(x), **other)

    first, swapped = norm(pool(blobs["relu1"])), pool(norm(blobs["relu1"]))
    ours, other = (swapped, first) if norm_first else (first, swapped)
    assert difference(ours, right) < TOLERANCE
    assert difference(other, right) > VISIBLE

    before = blobs["relu1" if norm_first else "pool1"]
    assert difference(norm(before), blobs["norm1"]) < TOLERANCE
    assert difference(norm(before, alpha=5e-4), blobs["norm1"]) > VISIBLE  # alpha not divided
    assert difference(norm(before, size=3, alpha=6e-5), blobs["norm1"]) > VISIBLE

    rows = blobs["pool5"].reshape(PICTURES, -1)
    as_caffe_counts = blobs["pool5"].transpose(0, 3, 1, 2).reshape(PICTURES, -1)
    kernel, bias = params["fc6"]["kernel"], params["fc6"]["bias"]
    assert difference(rows @ kernel + bias, blobs["fc6"]) < TOLERANCE
    assert difference(as_caffe_counts @ kernel + bias, blobs["fc6"]) > VISIBLE

    def conv1(x, kernel):
        return layers.conv2d(jnp.asarray(x), kernel, 4) + params["conv1"]["bias"]

    x, kernel = case.inputs[227], params["conv1"]["kernel"]
    assert difference(conv1(x, kernel), blobs["conv1"]) < TOLERANCE
    assert difference(conv1(x[..., ::-1], kernel), blobs["conv1"]) > VISIBLE  # RGB for BGR
    assert difference(conv1(x, kernel[::-1, ::-1]), blobs["conv1"]) > VISIBLE

    def conv2(kernel):
        before = jnp.asarray(blobs["pool1" if norm_first else "norm1"])
        return layers.conv2d(before, kernel, 1, 2, 2) + params["conv2"]["bias"]

    kernel = params["conv2"]["kernel"]
    interleaved = kernel.reshape(5, 5, 48, 128, 2).swapaxes(3, 4).reshape(kernel.shape)
    assert difference(conv2(kernel), blobs["conv2"]) < TOLERANCE
    assert difference(conv2(interleaved), blobs["conv2"]) > VISIBLE


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The generator's `Case`, its only side 0."""
    folder = tmp_path_factory.mktemp("generator")
    write(folder, "fc6_generator")
    random = np.random.default_rng(9)
    codes = random.normal(0, 10, (PICTURES, 4096)).clip(0, 30).astype(np.float32)
    try:
        reference = opencv(folder, *prototxts.generator(), codes)
        params = converted(folder, "fc6_generator")
        return Case("fc6_generator", {0: reference}, params, {0: codes})
    finally:
        clean(folder)


def test_the_generators_picture_and_layers(drawn):
    module, blobs = Generator(caffenet.FC6_GENERATOR), dict(drawn.reference[0])

    @jax.jit
    def draw(params, codes):
        return module.apply({"params": params}, codes, capture_intermediates=True)

    with jax.default_matmul_precision("highest"):
        image, state = draw(drawn.params, drawn.inputs[0])
    assert image.shape == (PICTURES, 256, 256, 3)
    layer_names = [name for name in blobs if not name.startswith("relu")]
    assert set(layer_names) == set(drawn.params)
    # defc5 is the map that follows it, and ours counts its channels last.
    blobs["defc5"] = channels_last(blobs["defc5"].reshape(PICTURES, 256, 4, 4))
    blobs["defc5"] = blobs["defc5"].reshape(PICTURES, -1)
    found = {name: state["intermediates"][name]["__call__"][0] for name in layer_names}
    worst = {name: difference(found[name], blobs[name]) for name in layer_names}
    worst["image"] = difference(image, blobs["deconv0"])
    print(f"fc6_generator: at most {max(worst.values()):.1e}", worst)
    assert max(worst.values()) < TOLERANCE, worst


def test_mistakes_in_the_generator_show(drawn):
    blobs, params = drawn.reference[0], drawn.params

    def deconv(name, x, kernel, stride):
        return layers.deconv2d(jnp.asarray(x), kernel, stride, 1) + params[name]["bias"]

    for name, before, stride in (("conv5_1", "relu_deconv5", 1), ("deconv4", "relu_conv5_1", 2)):
        x, kernel = blobs[before], params[name]["kernel"]
        assert difference(deconv(name, x, kernel, stride), blobs[name]) < TOLERANCE
        turned = np.ascontiguousarray(kernel[::-1, ::-1])
        assert difference(deconv(name, x, turned, stride), blobs[name]) > VISIBLE
    x, kernel = blobs["relu_deconv4"], params["conv4_1"]["kernel"]
    exchanged = kernel.swapaxes(2, 3)  # as many inputs as outputs: no shape gives it away
    assert difference(deconv("conv4_1", x, kernel, 1), blobs["conv4_1"]) < TOLERANCE
    assert difference(deconv("conv4_1", x, exchanged, 1), blobs["conv4_1"]) > VISIBLE

    unordered = blobs["defc5"].reshape(PICTURES, 4, 4, 256)
    ordered = channels_last(blobs["defc5"].reshape(PICTURES, 256, 4, 4))
    ours = blobs["relu_defc6"] @ params["defc5"]["kernel"] + params["defc5"]["bias"]
    ours = ours.reshape(PICTURES, 4, 4, 256)
    assert difference(ours, ordered) < TOLERANCE
    assert difference(ours, unordered) > VISIBLE
