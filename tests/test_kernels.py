"""The pair of functions in one's own jit, scan and vmap."""

import jax
import numpy as np
import pytest

import inverse_set
from inverse_set import Constraint, Settings, run
from tests import toys

ASKED = [Constraint("cos", 0.5, 0.8)]
KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def start():
    return np.random.default_rng(0).uniform(-3, 3, (10, 1)).astype(np.float32)


def scanned(kernel, state, steps):
    return jax.lax.scan(lambda state, _: kernel.step(state), state, length=steps)


@pytest.mark.parametrize("settings", [Settings(), Settings(walk="refine"), Settings(rule="paper")])
def test_a_scan_is_the_run(start, settings):
    """The same samples, in the same order, as the loop with progress and an end."""
    kernel = inverse_set.kernel(toys.CIRCLE, ASKED, start, settings)
    state = kernel.init(kernel.seeds(start), KEY)
    if settings.walk == "refine":  # whose first step moves the seeds
        state = state._replace(step=state.step - 1)
    _, found = jax.jit(scanned, static_argnums=2)(kernel, state, 6)
    expected = run.sample(toys.CIRCLE, ASKED, start, 40, settings, key=KEY)
    rows = np.asarray(found.accepted).reshape(-1)
    codes = np.asarray(found.codes).reshape(-1, 1)[rows]
    if settings.walk == "refine":
        np.testing.assert_allclose(codes[:10], expected.codes[:10], rtol=1e-5)
        return
    wanted = expected.codes[expected.step > 0][: len(codes)]
    assert len(wanted) >= 20
    np.testing.assert_allclose(codes[: len(wanted)], wanted, rtol=1e-5)
    activations = np.asarray(found.observation.activations).reshape(-1)[rows]
    assert (activations >= 0.5).all() and (
        activations <= (0.8 if settings.rule != "paper" else 1)
    ).all()


def test_many_keys_and_many_problems_at_once(start):
    """vmap over keys, and over intervals, whose numbers are arguments."""
    kernel = inverse_set.kernel(toys.CIRCLE, ASKED, start)
    seeds = kernel.seeds(start)
    keys = jax.random.split(KEY, 4)
    states = jax.vmap(kernel.init, (None, 0))(seeds, keys)
    _, found = jax.vmap(lambda state: scanned(kernel, state, 3))(states)
    one, alone = scanned(kernel, kernel.init(seeds, keys[2]), 3)
    np.testing.assert_allclose(found.codes[2], alone.codes, rtol=1e-5)
    assert not np.allclose(found.codes[1], found.codes[2]) and int(one.step) == 3
    others = [
        inverse_set.kernel(toys.CIRCLE, [Constraint("", low, low + 0.2)], start)
        for low in (-0.5, 0.1)
    ]
    both = jax.tree.map(lambda *leaves: np.stack(leaves), *others)

    def sampled(kernel, key):
        return scanned(kernel, kernel.init(kernel.seeds(start), key), 3)[1]

    found = jax.jit(jax.vmap(sampled, (0, None)))(both, KEY)
    for row, low in enumerate((-0.5, 0.1)):
        accepted = np.asarray(found.accepted[row])
        values = np.asarray(found.observation.activations[row])[accepted]
        assert accepted.sum() >= 20 and (values >= low).all() and (values <= low + 0.2).all()


def test_what_cannot_work(start):
    with pytest.raises(ValueError, match="expected walk"):
        inverse_set.kernel(toys.CIRCLE, ASKED, start, Settings(walk="both"))
    with pytest.raises(ValueError, match=r"expected activations \(10, 2\)"):
        inverse_set.kernel(toys.CIRCLE, 2 * ASKED, start)
