import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inverse_set import constraints, diversity, observe, sampler, seeds
from inverse_set.types import networks
from tests import toys

SEEDS = jnp.asarray([[-0.9], [-0.8], [0.75], [0.95]])


def at_seeds(walk, length, interval=(0.5, 0.8), codes=SEEDS, weight=0.01, paper=False):
    rule = constraints.paper if paper else constraints.two_sided
    weight, unit = jnp.asarray(weight, codes.dtype), jnp.asarray(1.0, codes.dtype)
    problem = seeds.Problem(toys.CIRCLE, rule([interval]), weight, unit)
    observation = observe.observe(toys.CIRCLE, codes)
    inside = constraints.inside(observation.activations, problem.target)
    duals = jnp.full((len(codes), 1), -0.3, codes.dtype), jnp.asarray(20.0, codes.dtype)
    key = jax.random.key(0)
    return problem, sampler.init(walk, codes, observation, *duals, inside, length, key)


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
    """A code in the middle keeps a first step of about 0.2; one at the far end of the arc cannot.

    The first length is log-uniform, at most a factor of sqrt(2) from 0.2, so what is left after h
    halvings lies within the same factor of 0.2 / 2^h.
    """
    walk = sampler.Walk()
    middle, end = jnp.arccos(0.65), jnp.arccos(0.51)
    problem, state = at_seeds(walk, 0.1, codes=jnp.asarray([[-middle], [end]]), weight=100.0)
    drawn = []
    for key in range(40):
        _, found = sampler.advance(state._replace(key=jax.random.key(key)), problem, walk, 1, 1)
        assert found.accepted.all()
        drawn.append(np.log2(found.length[0] / 0.1))
    kept, halved = np.asarray(drawn).T
    assert (np.abs(kept) <= 0.5 + 1e-5).all() and np.ptp(kept) > 0.7
    assert (halved < -1).all()


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


def same(a, b):
    """Equal to the bit; keys by their data."""
    if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
    np.testing.assert_array_equal(a, b)


def test_pieces_of_a_walk_are_the_walk():
    walk = sampler.Walk()
    problem, state = at_seeds(walk, 0.2)
    whole, found = sampler.advance(state, problem, walk, 6, 8)
    piece, early = sampler.advance(state, problem, walk, 2, 8)
    piece, late = sampler.advance(piece, problem, walk, 4, 8)
    jax.tree.map(same, piece, whole)
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


def test_the_weight_is_that_of_the_mean_over_pairs():
    """Four codes have 12 ordered pairs of their own, and 16 with four of C0."""
    past = diversity.moments(jnp.ones((4, 2)))
    np.testing.assert_allclose(diversity.pair_weight(1.0, 4, past), 1 / 28)
    np.testing.assert_allclose(diversity.pair_weight(3.0, 4, diversity.no_points(2)), 3 / 12)
    assert diversity.pair_weight(1.0, 1, diversity.no_points(2)) == 1


def test_codes_that_do_not_walk_change_nothing_for_the_others():
    """The two that walk take the steps that they take alone; NaN in the others' places is no part
    of it."""
    walk, keep = sampler.Walk(), jnp.asarray([0, 2])
    problem, state = at_seeds(walk, 0.1, codes=SEEDS[keep])
    _, alone = sampler.advance(state, problem, walk, 3, 3)
    codes = jnp.where(jnp.asarray([[True], [False], [True], [False]]), SEEDS, jnp.nan)
    _, masked = at_seeds(walk, 0.1, codes=codes)
    assert masked.alive.tolist() == [True, False, True, False]
    after, found = sampler.advance(masked, problem, walk, 3, 3)
    # Random lengths are drawn for four and for two codes, so that the paths differ: the first
    # gradient must not, and nobody else is ever a sample.
    slope, _ = sampler._slope(state, problem, walk)
    slopes, sound = sampler._slope(masked, problem, walk)
    np.testing.assert_allclose(slopes[keep], slope, rtol=1e-5)
    assert sound.tolist() == [True, False, True, False] and alone.accepted.all()
    assert found.accepted[:, keep].all() and not found.accepted[:, ~sound].any()
    assert after.past.count == 2 and jnp.isfinite(after.past.mean).all()


def test_a_chain_that_meets_nan_dies_alone():
    """f breaks beyond t = 0.95, where the last seed is led; the others walk on."""
    circle = networks(
        lambda c: jnp.where(c > 0.95, jnp.nan, jnp.concatenate([jnp.cos(c), jnp.sin(c)], -1)),
        lambda x: x,
        lambda x: x[:, :1],
    )
    walk = sampler.Walk(backtrack=False)
    problem, state = at_seeds(walk, 0.05)
    problem = problem._replace(networks=circle, target=constraints.paper([(0.3, 0.5)]))
    after, found = sampler.advance(state, problem, walk, 20, 20)
    lost = np.flatnonzero(~np.asarray(after.alive))
    assert lost.tolist() == [3]
    dead = np.asarray(~found.alive[:, 3])
    assert dead.any() and not found.accepted[dead, 3].any()
    assert found.accepted[dead][:, :2].all() and jnp.isfinite(after.past.mean).all()


def test_another_key_is_another_walk_and_the_same_key_the_same():
    walk = sampler.Walk()
    problem, state = at_seeds(walk, 0.2)

    def levels(key):
        _, found = sampler.advance(state._replace(key=jax.random.key(key)), problem, walk, 50, 50)
        return np.asarray(found.observation.activations[..., 0]).ravel()

    first, second = levels(1), levels(2)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.3
    np.testing.assert_array_equal(levels(1), first)


def test_other_numbers_compile_nothing():
    """Lengths, halvings, weights, intervals, who walks, how many steps: all of it is traced."""
    walk = sampler.Walk()
    problem, state = at_seeds(walk, 0.2)
    sampler.advance(state, problem, walk, 1, 8)
    size = sampler.advance._cache_size()
    for length, halvings, weight in ((0.1, 3, 1.0), (0.3, 5, 0.1)):
        walk = sampler.Walk(halvings=halvings)
        problem, state = at_seeds(walk, length, (0.4, 0.9), weight=weight)
        state = state._replace(alive=state.alive.at[1].set(False), key=jax.random.key(7))
        sampler.advance(state, problem, walk, halvings, 8)
    assert sampler.advance._cache_size() == size


@pytest.mark.parametrize("micro_batch", [None, 2])
def test_samples_are_judged_in_full_precision_and_gradients_taken_in_the_default(micro_batch):
    """On accelerators the default multiplies in fewer digits than float32 has."""
    plane = toys.neuron(jnp.asarray([[3.0, 4.0]]), jnp.asarray([1.0]))
    walk = sampler.Walk(micro_batch=micro_batch)
    problem = seeds.Problem(plane, constraints.two_sided([(2.0, 3.0)]), jnp.asarray(0.1))
    codes = jnp.asarray([[0.3, 0.2], [0.2, 0.3], [0.1, 0.3]])
    observation = observe.observe(plane, codes)
    duals = jnp.zeros((3, 1)), jnp.asarray(10.0)
    key = jax.random.key(0)
    state = sampler.init(walk, codes, observation, *duals, jnp.ones(3, bool), 0.1, key)
    step = jax.make_jaxpr(lambda state: sampler.step(state, problem, walk))(state)
    trial = next(e for e in step.eqns if e.primitive.name == "while")

    def products(text):
        """(how many there are, how many of them in full float32)"""
        return text.count("dot_general["), text.count("(Precision.HIGHEST, Precision.HIGHEST)")

    of_trial, of_rest = products(str(trial)), products("".join(str(e) for e in step.eqns))
    assert of_trial == (1, 1) and of_rest[0] > 1 and of_rest[1] == 1
    judged = jax.make_jaxpr(observe.observe_exactly, static_argnums=2)(plane, codes, micro_batch)
    assert products(str(judged)) == (1, 1)
