import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inverse_set import constraints, diversity, observe, sampler, seeds
from tests import toys

SEEDS = jnp.asarray([[-0.9], [-0.8], [0.75], [0.95]])


def at_seeds(walk, length, interval=(0.5, 0.8), codes=SEEDS, weight=0.01, paper=False):
    rule = constraints.paper if paper else constraints.two_sided
    weight, unit = jnp.asarray(weight, codes.dtype), jnp.asarray(1.0, codes.dtype)
    problem = seeds.Problem(toys.CIRCLE, rule([interval]), weight, unit)
    observation = observe.observe(toys.CIRCLE, codes)
    inside = constraints.inside(observation.activations, problem.target)
    multipliers = jnp.full((len(codes), 1), -0.3, codes.dtype)
    penalty = jnp.asarray(20.0, codes.dtype)
    return problem, sampler.init(walk, codes, observation, multipliers, penalty, inside, length)


def test_the_plain_step_is_eq_11(x64):
    """C' = C - beta dL/dC, against autodiff of the pair-by-pair sums."""
    walk = sampler.Walk(backtrack=False, mean_pairs=False)
    codes = SEEDS.astype(float)
    problem, state = at_seeds(walk, 0.03, codes=codes, weight=1.0, paper=True)
    before = observe.observe(toys.CIRCLE, codes).features

    def naive(codes):
        e = jnp.concatenate([jnp.cos(codes), jnp.sin(codes)], -1)
        pairs = sum(jnp.sum((a - b) ** 2) for a in e for b in e)
        pairs += sum(jnp.sum((a - b) ** 2) for a in e for b in before)
        slacks = jnp.maximum(e[:, :1] - 0.3 / 20, 0.65)
        r = e[:, :1] - jax.lax.stop_gradient(slacks)
        return -pairs + (-0.3 * r + 20 / 2 * r**2).sum()

    expected = codes - 0.03 * jax.grad(naive)(codes)
    state, found = sampler.advance(state, problem, walk, 1, 1)
    np.testing.assert_allclose(found.codes[0], expected, rtol=1e-10)
    np.testing.assert_allclose(state.codes, expected, rtol=1e-10)


def test_every_step_yields_k_samples_when_steps_are_backtracked():
    walk = sampler.Walk()
    problem, state = at_seeds(walk, 0.5)
    _, found = sampler.advance(state, problem, walk, 40, 40)
    assert found.accepted.all()
    first = jnp.cos(found.codes[..., 0])
    assert ((first >= 0.5) & (first <= 0.8)).all()


def test_a_step_is_halved_only_where_it_must_be():
    """A code in the middle keeps a full step of 0.2; one at the far end of the arc does not."""
    walk = sampler.Walk()
    middle, end = jnp.arccos(0.65), jnp.arccos(0.51)
    problem, state = at_seeds(walk, 0.2, codes=jnp.asarray([[-middle], [end]]), weight=1.0)
    problem = problem._replace(weight=jnp.asarray(100.0))
    _, found = sampler.advance(state, problem, walk, 1, 1)
    assert found.length[0, 0] == np.float32(0.2) or found.length[0, 0] == np.float32(0.1)
    assert found.length[0, 1] < found.length[0, 0]
    halvings = np.log2(0.2 / found.length[0, 1])
    np.testing.assert_allclose(halvings, round(float(halvings)), atol=1e-5)


def test_a_code_that_cannot_step_stays_and_is_no_sample():
    walk = sampler.Walk(halvings=1)
    edge = jnp.arccos(0.50001)
    problem, state = at_seeds(walk, 0.2, codes=jnp.asarray([[-edge], [edge]]))
    problem = problem._replace(weight=jnp.asarray(1e4))
    after, found = sampler.advance(state, problem, walk, 1, 1)
    assert not found.accepted.any()
    np.testing.assert_array_equal(after.codes, state.codes)
    jax.tree.map(np.testing.assert_array_equal, after.past, state.past)


def test_a_code_without_a_gradient_steps_at_random():
    """One seed that is its own C0: eq. 7 has no gradient, and yet it steps on."""
    walk = sampler.Walk()
    problem, state = at_seeds(walk, 0.05, codes=jnp.asarray([[0.8]]))
    state = state._replace(multipliers=jnp.zeros((1, 1)))
    _, found = sampler.advance(state, problem, walk, 10, 10)
    assert found.accepted.all()
    assert (np.diff(found.codes[:, 0, 0]) != 0).all()


def test_a_picture_that_does_not_change_is_no_sample():
    """The box undoes every step."""
    walk = sampler.Walk()
    problem, state = at_seeds(walk, 0.1)
    problem = problem._replace(lower=SEEDS[:1] * 0 - 0.9, upper=SEEDS[:1] * 0 - 0.9)
    codes = jnp.full((4, 1), -0.9)
    images = observe.observe(problem.networks, codes).images
    state = state._replace(codes=codes, images=images)
    _, found = sampler.advance(state, problem, walk, 2, 2)
    assert not found.accepted.any()


@pytest.mark.parametrize("memory", sampler.MEMORIES)
def test_c0_is_replaced_or_accumulates(memory):
    walk = sampler.Walk(memory=memory)
    problem, state = at_seeds(walk, 0.05)
    state, found = sampler.advance(state, problem, walk, 3, 3)
    seen = found.observation.features[found.accepted]
    if memory == "replace":
        expected = diversity.moments(found.observation.features[2][found.accepted[2]])
    else:
        start = observe.observe(toys.CIRCLE, SEEDS).features
        expected = diversity.moments(jnp.concatenate([start, seen]))
    for a, b in zip(state.past, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)


def test_the_paper_keeps_its_last_nonempty_c0():
    walk = sampler.Walk(backtrack=False, mean_pairs=False)
    problem, state = at_seeds(walk, 50.0, interval=(0.999, 0.9999), weight=1.0, paper=False)
    state = state._replace(past=diversity.moments(jnp.ones((3, 2))))
    after, found = sampler.advance(state, problem, walk, 1, 1)
    assert not found.accepted.any()
    assert after.past.count == 3
    np.testing.assert_array_equal(after.codes, found.codes[0])


def test_pieces_of_a_walk_are_the_walk():
    walk = sampler.Walk()
    problem, state = at_seeds(walk, 0.2)
    whole, found = sampler.advance(state, problem, walk, 6, 8)
    piece, early = sampler.advance(state, problem, walk, 2, 8)
    piece, late = sampler.advance(piece, problem, walk, 4, 8)
    jax.tree.map(np.testing.assert_array_equal, piece, whole)
    np.testing.assert_array_equal(early.codes[:2], found.codes[:2])
    np.testing.assert_array_equal(late.codes[:4], found.codes[2:6])
    assert not found.accepted[6:].any()


def test_a_second_step_compiles_nothing():
    walk = sampler.Walk()
    problem, state = at_seeds(walk, 0.2)
    state, _ = sampler.advance(state, problem, walk, 1, 8)
    size = sampler.advance._cache_size()
    sampler.advance(state, problem, walk, 7, 8)
    assert sampler.advance._cache_size() == size


def test_the_weight_counts_pairs_not_samples():
    """With C0 of the seeds' own size the mean over pairs keeps the seeds' scale."""
    past = diversity.moments(jnp.ones((4, 2)))
    np.testing.assert_allclose(sampler.pair_weight(1.0, 4, past), 12 / 28)
    assert sampler.pair_weight(1.0, 1, diversity.no_points(2)) == 1
