import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inverse_set import constraints, diversity, lagrangian, observe
from inverse_set.types import Networks, networks

RAW = ("encoder", False)  # the raw sum over pairs of encodings


@pytest.fixture
def problem(x64):
    """A smooth toy with two constraints, none of whose parts is linear."""
    keys = jax.random.split(jax.random.key(0), 5)
    first = jax.random.normal(keys[0], (3, 6))
    second = jax.random.normal(keys[1], (6, 2))
    net = networks(
        lambda codes: jnp.tanh(codes @ first),
        lambda images: images**2 + images,
        lambda images: jnp.sin(images) @ second * 3,
    )
    codes = jax.random.normal(keys[2], (5, 3))
    multipliers = jax.random.normal(keys[3], (5, 2))
    past = jax.random.normal(keys[4], (4, 6))
    target = constraints.two_sided([(0.5, 1.0), (-1.0, 0.5)])
    return net, codes, multipliers, target, past


def naive(net, codes, multipliers, penalty, target, past, weight):
    """Eq. 11 pair by pair, slacks inserted as numbers."""
    observation = observe.observe(net, codes)
    e = observation.features
    pairs = sum(jnp.sum((a - b) ** 2) for a in e for b in e)
    pairs += sum(jnp.sum((a - b) ** 2) for a in e for b in past)
    slacks = constraints.optimal_slacks(observation.activations, multipliers, penalty, target)
    r = (observation.activations - slacks) / target.scale
    return -weight * pairs + (multipliers * r + penalty / 2 * r**2).sum()


def held(multipliers, penalty=2.0):
    """Lambda and mu that do not follow the activations."""
    return lambda activations: (multipliers, penalty)


def gradient(problem):
    net, codes, multipliers, target, past = problem
    fixed = diversity.moments(past)
    everyone = jnp.ones(5, bool)
    return lagrangian.gradient(net, codes, held(multipliers), target, fixed, 0.3, RAW, everyone)


def both_ways(problem, micro):
    """(slope, activations, pair sum) of eq. 9, all at once and in micro-batches."""
    net, codes, multipliers, target, _ = problem
    common = (net, codes, held(multipliers), target)
    nothing = diversity.no_points(6, codes.dtype)
    alive = jnp.ones(len(codes), bool)
    slope, seen, *_ = lagrangian.gradient(*common, nothing, 0.3, RAW, alive)
    whole = (slope, seen.activations, diversity.pair_sum(seen.features))
    return whole, lagrangian.batched_gradient(*common, nothing, 0.3, RAW, alive, micro)[:3]


def test_gradient_is_that_of_eq_11_pair_by_pair(problem):
    """Autodiff through the optimal slack too: its own gradient is zero at the minimum."""
    net, codes, multipliers, target, past = problem
    expected = jax.grad(lambda c: naive(net, c, multipliers, 2.0, target, past, 0.3))(codes)
    np.testing.assert_allclose(gradient(problem)[0], expected, rtol=1e-10)


def test_gradient_against_finite_differences(problem):
    net, codes, multipliers, target, past = problem
    slope = gradient(problem)[0]
    step = 1e-6
    for i in range(codes.shape[0]):
        for j in range(codes.shape[1]):
            bump = jnp.zeros_like(codes).at[i, j].set(step)
            up, down = (
                naive(net, codes + s * bump, multipliers, 2.0, target, past, 0.3) for s in (1, -1)
            )
            np.testing.assert_allclose(slope[i, j], (up - down) / (2 * step), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("micro", [1, 2, 3, 5, 8])
def test_micro_batches_change_nothing(problem, micro):
    whole, parts = both_ways(problem, micro)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-12 * np.abs(a).max())


@pytest.mark.parametrize("micro", [2, 3])
def test_micro_batches_change_nothing_in_single_precision(micro):
    keys = jax.random.split(jax.random.key(0), 4)
    first, second = jax.random.normal(keys[0], (3, 6)), jax.random.normal(keys[1], (6, 2))
    net = networks(
        lambda codes: jnp.tanh(codes @ first), lambda x: x**2 + x, lambda x: jnp.sin(x) @ second
    )
    target = constraints.two_sided([(0.5, 1.0), (-1.0, 0.5)])
    codes, multipliers = jax.random.normal(keys[2], (6, 3)), jax.random.normal(keys[3], (6, 2))
    whole, parts = both_ways((net, codes, multipliers, target, None), micro)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-6, atol=1e-6 * np.abs(a).max())


def test_memory_does_not_grow_with_n():
    """XLA's own count of temporary memory, images dwarfing the codes."""
    spread = jax.random.normal(jax.random.key(0), (4, 20000))

    def temporary(n, micro):
        def slope(codes, multipliers):
            net = networks(
                lambda codes: jnp.tanh(codes @ spread), lambda x: x[:, :8], lambda x: x[:, :1]
            )
            target = constraints.two_sided([(0.0, 0.5)])
            nothing, alive = diversity.no_points(8), jnp.ones(n, bool)
            common = (net, codes, held(multipliers, 1.0), target, nothing, 1.0, RAW, alive)
            if micro:
                return lagrangian.batched_gradient(*common, micro)
            return lagrangian.gradient(*common)[0]

        compiled = jax.jit(slope).lower(jnp.zeros((n, 4)), jnp.zeros((n, 1))).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(2000, 10) <= 1.05 * temporary(10, 10)
    assert temporary(200, None) > 5 * temporary(20, None)


def test_pictures_are_observed_as_saved_and_the_gradient_passes_through():
    net = networks(lambda c: c, lambda x: x, lambda x: x.sum(-1, keepdims=True), jnp.round)
    codes = jnp.asarray([[0.4, 1.7]])
    assert observe.observe(net, codes).images.tolist() == [[0.0, 2.0]]
    slope = jax.grad(lambda c: observe.observe(net, c).activations.sum())(codes)
    assert slope.tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("micro_batch", [None, 2])
def test_lambda_and_mu_may_follow_the_activations_before_the_gradient_is_taken(
    problem, micro_batch
):
    net, codes, multipliers, target, past = problem
    rest = target, diversity.moments(past), 0.3, RAW, jnp.ones(5, bool)

    def duals(activations):
        return lagrangian.update_multipliers(activations, multipliers, 2.0, target), 4.0

    gradient = lagrangian.gradient
    if micro_batch:
        rest, gradient = (*rest, micro_batch), lagrangian.batched_gradient
    updated = duals(observe.observe(net, codes).activations)
    slope, *_, used, _ = gradient(net, codes, duals, *rest)
    expected, *_ = gradient(net, codes, held(*updated), *rest)
    np.testing.assert_allclose(slope, expected, rtol=1e-10)
    np.testing.assert_allclose(used[0], updated[0], rtol=1e-10)


def test_penalty_grows_to_its_cap():
    assert lagrangian.update_penalty(10.0, 10.0, 500.0) == 100
    assert lagrangian.update_penalty(100.0, 10.0, 500.0) == 500


def test_one_forward_pass_serves_features_and_activations(problem):
    """The gradient of eq. 11 runs each network once, and its observation is of that pass."""
    net, *rest = problem
    runs = []

    def counted(name, function):
        return jax.tree_util.Partial(lambda x: (runs.append(name), function(x))[1])

    once = Networks(*map(counted, net._fields, net))
    slope, seen, *_ = gradient((once, *rest))
    assert sorted(runs) == ["finish", "generate", "read"]
    np.testing.assert_array_equal(slope, gradient(problem)[0])
    jax.tree.map(np.testing.assert_array_equal, seen, observe.observe(net, problem[1]))
