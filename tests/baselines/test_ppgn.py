import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inverse_set.baselines import ppgn, trace
from inverse_set.types import networks

WEIGHTS = np.asarray([[1.0, -0.5, 0.2], [0.0, 0.4, -0.1]])
MIDDLE = np.asarray([3.0, 2.0, 4.0])
STIFF = 0.5  # E(G(h)) - h = -STIFF (h - MIDDLE), the gradient of a quadratic log-prior


def _same(images):
    return images


def _shrink(middle, images):
    return images - STIFF * (images - middle[None])


def _linear(weights, images):
    return images @ weights.T


def _coarse(images):
    return jnp.round(images * 4) / 4


def toy(finish=None):
    partial = jax.tree_util.Partial
    encode, activate = partial(_shrink, jnp.asarray(MIDDLE)), partial(_linear, jnp.asarray(WEIGHTS))
    return networks(_same, encode, activate, finish)


@functools.partial(jax.jit, static_argnames="plan")
def one_step(networks, codes, prior, constants, plan):
    """The state and the row after one step of chains 0, 1, ... from codes `[K, 3]`."""
    keys = trace.chain_keys(jax.random.key(0), jnp.arange(len(codes)))
    state = ppgn.init(keys, codes, jnp.full(len(codes), prior), networks, 0, plan)
    return ppgn.step(state, networks, 0, constants, plan)


def run(chains=(0, 1, 2), constants=None, plan=None, key=0, unit=0, finish=None):
    constants, plan = constants or ppgn.Constants(), plan or ppgn.Plan(6)
    chains = jnp.asarray(chains)
    return ppgn.run(jax.random.key(key), chains, 3, toy(finish), unit, constants, plan)


def test_the_gradient_of_log_p_goes_through_the_units_own_logit(x64):
    logits = jnp.asarray([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]])
    slope = jax.grad(lambda a: ppgn.log_probability(a, jnp.asarray([1, 2])).sum())(logits)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(slope, [[0, 1 - p[0, 1], 0], [0, 0, 1 - p[1, 2]]], rtol=1e-12)


def test_a_class_that_is_certain_still_has_a_gradient():
    logits = jnp.asarray([[30.0, 0.0]])
    slope = jax.grad(lambda a: ppgn.log_probability(a, 0).sum())(logits)
    np.testing.assert_allclose(slope[0, 0], np.exp(-30.0), rtol=1e-4)


def test_a_step_is_the_published_one(x64):
    """Against the same in NumPy, with a prior that counts."""
    constants = ppgn.Constants(prior=0.3, condition=2.0, noise=0.0, rate=0.7)
    codes = np.asarray([[0.5, 1.0, 2.0], [4.0, 0.1, 29.9]])
    state, row = one_step(toy(), codes, 0.3, constants, ppgn.Plan())

    logits = codes @ WEIGHTS.T
    p = 1 / (1 + np.exp(logits[:, 1] - logits[:, 0]))
    d = 0.3 * STIFF * (MIDDLE - codes) + 2.0 * (1 - p)[:, None] * WEIGHTS[0]
    expected = np.clip(codes + 0.7 * d / np.abs(d).mean(1, keepdims=True), 0, 30)
    np.testing.assert_allclose(row.codes, expected, rtol=1e-12)
    np.testing.assert_allclose(row.activations, expected @ WEIGHTS[0], rtol=1e-12)
    np.testing.assert_array_equal(state.codes, row.codes)


def test_a_quadratic_prior_and_a_linear_neuron_meet_in_the_middle(x64):
    """Where e1 STIFF (h - MIDDLE) = e2 w; no closer than steps of fixed mean size can."""
    constants = ppgn.Constants(prior=0.2, condition=0.1, noise=0.0, rate=1e-3)
    found = run(constants=constants, plan=ppgn.Plan(5000, softmax=False))
    best = MIDDLE + 0.1 / (0.2 * STIFF) * WEIGHTS[0]
    np.testing.assert_allclose(found.codes[-100:], np.broadcast_to(best, (100, 3, 3)), atol=5e-3)


def test_the_noise_has_the_standard_deviation_asked_for(x64):
    """Beside a pull of size one on every entry; d is known up to its mean size."""
    codes = np.broadcast_to(MIDDLE - 1 / STIFF, (1000, 3))
    constants = ppgn.Constants(condition=0.0, noise=0.1, rate=1.0, lower=-30.0)
    moved = (
        np.asarray(one_step(toy(), codes, 1.0, constants, ppgn.Plan(softmax=False))[1].codes)
        - codes
    )
    np.testing.assert_allclose(moved.mean(), 1, rtol=1e-6)
    np.testing.assert_allclose(moved.std(), 0.1 * np.sqrt(2 / 3), rtol=0.06)


@pytest.mark.parametrize("softmax", [True, False])
def test_a_chain_alone_is_the_chain_among_others(softmax, x64):
    constants = ppgn.Constants(prior=0.1, noise=0.3, rate=0.1)
    plan = ppgn.Plan(6, 2, softmax)
    many, alone = run(constants=constants, plan=plan), run([1], constants, plan)
    assert many.codes.shape == (6, 3, 3) and many.activations.shape == (6, 3)
    for whole, part in zip(many, alone, strict=True):
        np.testing.assert_allclose(whole[:, 1:2], part, rtol=1e-9)
    assert (np.ptp(np.asarray(many.codes), axis=1).max(1) > 1e-3).all()


def test_chains_of_different_classes_run_together(x64):
    both = run(unit=jnp.asarray([0, 1, 0]))
    np.testing.assert_allclose(both.codes[:, 1], run(unit=1).codes[:, 1])
    np.testing.assert_allclose(both.activations[:, 1], both.codes[:, 1] @ WEIGHTS[1])


def test_a_restart_is_a_fresh_start_with_a_prior_of_its_own():
    @jax.jit
    def draw(restart):
        keys = trace.chain_keys(jax.random.key(0), jnp.arange(500))
        return ppgn.draw(keys, 3, restart, ppgn.Constants(prior=0.25))

    codes, prior = draw(0)
    assert (prior == 0.25).all()
    np.testing.assert_allclose(codes.std(), 1, rtol=0.05)
    _, prior = draw(1)
    assert prior.min() >= 1e-6 and prior.max() <= 1e-2
    np.testing.assert_allclose(prior.mean(), 5e-3, rtol=0.1)

    still = ppgn.Constants(rate=0.0, lower=-30.0)
    found = run(constants=still, plan=ppgn.Plan(6, 2, softmax=False)).codes
    np.testing.assert_array_equal(found[0::2], found[1::2])
    assert len(np.unique(found[0::2])) == 27


def test_codes_stay_between_the_bounds():
    upper = jnp.asarray([[1.0, 2.0, 3.0]])
    found = run(constants=ppgn.Constants(rate=2.0, upper=upper)).codes
    assert (found >= 0).all() and (found <= upper).all() and (found == upper).any()


def test_what_is_recorded_is_read_from_the_saved_image():
    found = run(finish=_coarse)
    rounded = np.round(np.asarray(found.codes) * 4) / 4
    np.testing.assert_allclose(found.activations, rounded @ WEIGHTS[0], rtol=1e-5)


def test_the_key_decides_and_other_numbers_compile_nothing():
    first = run(constants=ppgn.Constants(rate=0.5))
    size = ppgn.run._cache_size()
    again = run(constants=ppgn.Constants(rate=0.5))
    np.testing.assert_array_equal(first.codes, again.codes)
    other = run(constants=ppgn.Constants(rate=0.4), key=1, unit=1)
    assert (first.codes != other.codes).any()
    assert ppgn.run._cache_size() == size


def test_without_any_direction_a_code_stays():
    nothing = ppgn.Constants(prior=0.0, condition=0.0, noise=0.0, lower=-30.0)
    with jax.debug_nans(True):
        found = run(constants=nothing)
    np.testing.assert_array_equal(found.codes[0], found.codes[2])


def test_restarts_have_to_divide_the_steps():
    with pytest.raises(ValueError, match="multiple of restart_every 4"):
        run(plan=ppgn.Plan(10, 4))
    assert ppgn.HIDDEN == (1000, 100, False)
