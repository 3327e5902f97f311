import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inverse_set.models import mini
from inverse_set.models.classifier import (
    Classifier,
    Conv,
    Dense,
    Pool,
    relu_name,
)

MINI = ["conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5", "fc6", "fc7", "fc8"]
PLAN = (
    Conv("conv1", 6, 5, 4, 2),
    Pool("pool1"),
    Conv("conv2", 8, 3, 1, 1, 2),
    Pool("pool2"),
    Dense("fc3", 6),
    Dense("fc4", 5),
    Dense("fc5", 4),
)
HIDDEN = ["conv1", "conv2", "fc3", "fc4"]
ORDER = [
    "conv1",
    "relu1",
    "pool1",
    "conv2",
    "relu2",
    "pool2",
    "fc3",
    "relu3",
    "fc4",
    "relu4",
    "fc5",
    "prob",
]


def variables_of(network, images):
    """Random variables."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0), images)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), shapes)


@pytest.fixture(scope="module")
def case():
    """A network, its variables, images and every activation."""
    network = Classifier(PLAN)
    images = np.random.default_rng(1).normal(size=(3, 23, 31, 3)).astype(np.float32)
    variables = variables_of(network, images)
    return network, variables, images, network.apply(variables, images)


def test_relu_names():
    assert [relu_name(name) for name in ("conv1", "fc6", "conv12")] == ["relu1", "relu6", "relu12"]


def test_mini_shapes():
    """CaffeNet's layers; fc6 reads 4x4 pixels."""
    plan = mini.classifier_plan(7, 4)
    images = jax.ShapeDtypeStruct((2, mini.SIDE, mini.SIDE, 3), jnp.float32)
    network = Classifier(plan)
    outputs, _ = jax.eval_shape(network.init_with_output, jax.random.key(0), images)
    shapes = {name: values.shape[1:] for name, values in outputs.items()}
    assert [layer.name for layer in plan] == MINI
    sides = [shapes[name][0] for name in ("conv1", "pool1", "pool2", "conv5", "pool5")]
    assert sides == [64, 32, 16, 16, 4]
    widths = [shapes[f"conv{number}"][-1] for number in range(1, 6)]
    assert widths == [6, 12, 24, 24, 24]
    assert shapes["relu5"] == shapes["conv5"] and shapes["relu6"] == shapes["fc6"] == (128,)
    assert shapes["fc7"] == (128,) and shapes["fc8"] == (7,)


def test_every_layer_is_read_by_name(case):
    """Before and after its ReLU; the last layer and the pools have none."""
    outputs = case[-1]
    assert list(outputs) == ORDER
    for name in HIDDEN:
        assert (outputs[name] < 0).any()
        np.testing.assert_array_equal(outputs[relu_name(name)], np.maximum(outputs[name], 0))
    assert (outputs["fc5"] < 0).any()
    odds = np.exp(outputs["fc5"])
    np.testing.assert_allclose(outputs["prob"], odds / odds.sum(-1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("until", ORDER)
def test_until_stops_there(case, until):
    network, variables, images, everything = case
    outputs = network.apply(variables, images, until=until)
    assert list(outputs) == ORDER[: ORDER.index(until) + 1]
    for name, values in outputs.items():
        np.testing.assert_array_equal(values, everything[name])


def test_layers_do_what_their_records_say(case):
    """Groups, stride and padding reach the convolution, and inner products see every pixel."""
    _, variables, _, outputs = case
    kernels = {name: layer["kernel"].shape for name, layer in variables["params"].items()}
    assert outputs["conv1"].shape == (3, 6, 8, 6)
    assert outputs["pool1"].shape == (3, 3, 4, 6)
    assert outputs["conv2"].shape == (3, 3, 4, 8)
    assert outputs["pool2"].shape == (3, 1, 2, 8)
    assert kernels == {
        "conv1": (5, 5, 3, 6),
        "conv2": (3, 3, 3, 8),
        "fc3": (16, 6),
        "fc4": (6, 5),
        "fc5": (5, 4),
    }


def test_pools_take_what_comes_before_them():
    """After a pool or the image, too, where no ReLU stands between."""
    plan = (Pool("pool1"), Conv("conv2", 2, 1), Pool("pool2"), Pool("pool3"), Dense("fc4", 1))
    images = -np.arange(1.0, 1 + 13 * 13 * 3, dtype=np.float32).reshape(1, 13, 13, 3)
    weights = {
        "conv2": {"kernel": -jnp.eye(3, 2)[None, None], "bias": jnp.zeros(2)},
        "fc4": {"kernel": jnp.ones((2, 1)), "bias": jnp.zeros(1)},
    }
    outputs = Classifier(plan).apply({"params": weights}, images)
    rows = np.arange(0, 12, 2)  # every window of falling values has its maximum first
    np.testing.assert_array_equal(outputs["pool1"], images[:, rows][:, :, rows])
    first = -images[:, rows][:, :, rows][..., :2]
    np.testing.assert_array_equal(outputs["conv2"], first)
    # Rising now: windows of 3 with stride 2, the last clipped, end at 2, 4, 5; then at the last.
    ends = np.asarray([2, 4, 5])
    np.testing.assert_array_equal(outputs["pool2"], first[:, ends][:, :, ends])
    np.testing.assert_array_equal(outputs["pool3"], first[:, 5:, 5:])
