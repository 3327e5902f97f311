"""JAX's own settings, from the environment or a notebook: the work is in float32 all the same."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inverse_set import observe, run
from inverse_set.models import bind, caffenet, units, weights, zoo
from inverse_set.models.classifier import Classifier
from inverse_set.models.generator import Generator
from inverse_set.settings import Natural, Settings
from inverse_set.types import Constraint, Status
from tests import toys

SETTINGS = {
    "JAX_ENABLE_X64=1": lambda: [jax.enable_x64(True)],
    "JAX_NUMPY_RANK_PROMOTION=raise": lambda: [jax.numpy_rank_promotion("raise")],
    "JAX_NUMPY_DTYPE_PROMOTION=strict": lambda: [jax.numpy_dtype_promotion("strict")],
}
SETTINGS["all of them"] = lambda: [one for three in list(SETTINGS.values())[:3] for one in three()]
WAYS = {
    "direct": Settings(),
    "refine": Settings(walk="refine", encodings=1, memory="accumulate"),
    "joint": Settings(method="joint", plateau=3, distance="image"),
    "paper": Settings(rule="paper", step=1e-2, distance="code"),
}
FLOAT32 = {np.dtype(np.float32)}


@pytest.fixture
def within(request):
    """The setting named by the test's parameter, or all three at once."""
    with contextlib.ExitStack() as stack:
        for context in SETTINGS[request.param]():
            stack.enter_context(context)
        yield


PAIRS = [(name, "direct") for name in SETTINGS if name != "all of them"]
PAIRS += [("all of them", way) for way in WAYS if way != "direct"]


@pytest.mark.parametrize(("within", "way"), PAIRS, indirect=["within"])
def test_a_whole_run_is_of_float32(within, way):
    """Sec. 3.1's neuron on the unit cube."""
    neuron = toys.neuron(np.float32([[1.0, -2.0, 1.5]]), np.float32([0.25]), logistic=True)
    start = np.random.default_rng(0).uniform(size=(4, 3)).astype(np.float32)
    natural = Natural(np.zeros(3), np.ones(3), codes=start.astype(np.float64))
    count = len(start) if way == "joint" else 12
    asked = [Constraint("sigma", 0.7, 0.9)]
    found = run.sample(neuron, asked, start, count, WAYS[way], natural)
    assert found.status in (Status.OK, Status.PLATEAU, Status.BUDGET)
    columns = found.images, found.codes, found.features, found.activations
    assert {column.dtype for column in columns} == FLOAT32
    assert [len(column) for column in columns] == [count] * 4


@pytest.mark.parametrize("within", SETTINGS, indirect=True)
def test_the_bundled_networks_are_of_float32(within):
    """As traced: what they return, and the gradient to the codes."""
    zoo.load.cache_clear()
    try:
        model = zoo.load("mini", "scenes")
    finally:
        zoo.load.cache_clear()
    asked = ("fc8/10", "conv5/12@8,8", "prob/3", "mini.pool5/2")
    asked = [units.parse_unit(model, text) for text in asked]
    networks = jax.device_put(bind.networks(model, asked))  # as a run does

    def total(codes):
        seen = observe.observe(networks, codes)
        return sum(leaf.sum() for leaf in seen), seen

    codes = jax.ShapeDtypeStruct((3, *model.encoder.shapes["fc6"]), jnp.float32)
    traced = jax.eval_shape(jax.grad(total, has_aux=True), codes)
    assert {leaf.dtype for leaf in jax.tree.leaves(traced)} == FLOAT32
    assert bind.starting_codes(model, "gaussian", 2, 0).dtype == np.float32


@pytest.mark.parametrize("within", SETTINGS, indirect=True)
def test_the_full_size_networks_are_of_float32(within):
    read = Classifier(caffenet.CLASSIFIERS["caffenet"])
    traced(read, (caffenet.SIZE, caffenet.SIZE, 3), lambda found: found["prob"])
    traced(Generator(caffenet.FC6_GENERATOR), (caffenet.CODES,), lambda images: images)


def traced(network, size, read):
    """Outputs and the gradient to the input, of shapes alone: nothing is computed."""
    shapes = weights.shapes(network, size)
    of = jax.ShapeDtypeStruct
    parameters = jax.tree.map(
        lambda shape: of(shape, jnp.float32), shapes, is_leaf=lambda leaf: isinstance(leaf, tuple)
    )

    def total(x, parameters):
        found = read(network.apply({"params": parameters}, x))
        return found.sum(), found

    found = jax.eval_shape(jax.grad(total, has_aux=True), of((2, *size), jnp.float32), parameters)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == FLOAT32
