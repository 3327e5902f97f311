import jax
import numpy as np
import pytest

from inverse_set.models import certificate, mini
from inverse_set.models.classifier import Classifier, Conv, Dense, Norm, Pool

CAFFE = (  # what CaffeNet has and mini lacks: groups, stride 4, clipped pools, normalisation
    Conv("conv1", 6, 5, 4, 1),
    Pool("pool1"),
    Norm("norm1", 5, 0.1),
    Conv("conv2", 8, 3, 1, 2, groups=2),
    Norm("norm2", 3, 0.5, 0.75, 2.0),
    Pool("pool2"),
    Conv("conv3", 4, 2, 1, 0, groups=2),
    Dense("fc6", 7),
    Dense("fc7", 6),
    Dense("fc8", 4),
)
PLANS = {"mini": (mini.classifier_plan(3, 2), mini.SIDE), "caffe": (CAFFE, 43)}


def case(plan, size):
    """Random weights and images in float64."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, size, size, 3))
    shapes = jax.eval_shape(Classifier(plan).init, jax.random.key(0), images)["params"]
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape) / 3, shapes), images


@pytest.mark.parametrize("plan, size", PLANS.values(), ids=PLANS)
def test_agrees_with_the_network_in_every_layer(plan, size):
    weights, images = case(plan, size)
    with jax.enable_x64(True):
        outputs = jax.device_get(jax.jit(Classifier(plan).apply)({"params": weights}, images))
    assert {layer.name for layer in plan} < set(outputs)
    found = certificate.forward(plan, weights, images, outputs)
    assert set(found) == set(outputs)
    for name, expected in outputs.items():
        values = found[name]
        assert values.dtype == expected.dtype == np.float64
        tolerance = 1e-12 * np.abs(expected).max()
        np.testing.assert_allclose(values, expected, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("name", ["conv9", "relu8", "FC8"])
def test_unknown_layers(name):
    weights, images = case(CAFFE, 43)
    with pytest.raises(KeyError, match=name):
        certificate.forward(CAFFE, weights, images, ["conv1", name])


def test_one_inner_product_by_hand():
    """The certificate's own golden value: 1 * 2 + 2 * 3 - 1 = 7, and the ReLU of its negative."""
    plan = (Dense("fc1", 2), Dense("fc2", 1))
    weights = {
        "fc1": {"kernel": [[2, -2], [3, -3]], "bias": [-1, 1]},
        "fc2": {"kernel": [[1], [1]], "bias": [0.5]},
    }
    images = np.asarray([1, 2]).reshape(1, 1, 2, 1)
    found = certificate.forward(plan, weights, images, ["fc1", "relu1", "fc2"])
    np.testing.assert_array_equal(found["fc1"], [[7, -7]])
    np.testing.assert_array_equal(found["relu1"], [[7, 0]])
    np.testing.assert_array_equal(found["fc2"], [[7.5]])
