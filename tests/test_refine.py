"""Steps that leave the feasible region and come back: closed forms on a plane and on the circle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inverse_set import constraints, diversity, observe, refine, run, sampler, seeds
from inverse_set.settings import Natural, Settings, check, resolve
from inverse_set.types import Constraint, Status
from tests import toys

PLANE = toys.neuron(jnp.asarray([[3.0, 4.0]]), jnp.asarray([1.0]))
ALL = jnp.ones(40, bool)
SEEDS = jnp.asarray([[-0.9], [-0.8], [0.75], [0.95]])


def problem(networks, interval, lower=None, upper=None):
    target = constraints.two_sided([interval])
    return seeds.Problem(networks, target, jnp.asarray(1.0), jnp.asarray(1.0), lower, upper)


def walking(refinement, length=0.1, interval=(0.5, 0.8)):
    """The toy of two arcs, at seeds that are inside."""
    walk = sampler.Walk(refinement=refinement)
    asked = problem(toys.CIRCLE, interval)
    observation = observe.observe(toys.CIRCLE, SEEDS)
    lambdas, mu = jnp.zeros((4, 1)), jnp.asarray(10.0)
    inside = constraints.inside(observation.activations, asked.target)
    return (
        asked,
        walk,
        sampler.init(walk, SEEDS, observation, lambdas, mu, inside, length, jax.random.key(0)),
    )


def test_one_newton_step_solves_a_linear_neuron(x64):
    """f = 3 a + 4 b + 1 = s: the nearest solution lies (s - f) / 25 along (3, 4)."""
    codes, level, scale = jnp.asarray([[0.2, -0.3], [2.0, 1.0]]), 6.0, 0.7
    r = ((codes @ jnp.asarray([3.0, 4.0]) + 1) - level) / scale
    slope = r[:, None] * jnp.asarray([[3.0, 4.0]]) / scale
    moved = refine.newton(codes, r**2 / 2, slope, 1e9, None, None)
    expected = codes - (r * scale)[:, None] * jnp.asarray([[3.0, 4.0]]) / 25
    np.testing.assert_allclose(moved, expected, rtol=1e-12)
    np.testing.assert_allclose(moved @ jnp.asarray([3.0, 4.0]) + 1, level, rtol=1e-12)


def test_a_newton_step_has_a_longest_length_and_none_without_a_slope(x64):
    codes, slope = jnp.zeros((2, 2)), jnp.asarray([[3.0, 4.0], [0.0, 0.0]])
    moved = refine.newton(codes, jnp.asarray([50.0, 1.0]), slope, 0.5, None, None)
    np.testing.assert_allclose(moved, [[-0.3, -0.4], [0.0, 0.0]], rtol=1e-12)


def test_what_the_box_blocks_is_left_to_the_rest(x64):
    """b sits at its lower end and would fall: a alone does the work, and the level is reached."""
    codes, low, high = jnp.asarray([[0.5, 0.0]]), jnp.zeros((1, 2)), jnp.ones((1, 2))
    r = jnp.asarray([1.5 + 1.0 - 2.0])
    slope = r[:, None] * jnp.asarray([[3.0, 4.0]])
    moved = refine.newton(codes, r**2 / 2, slope, 1e9, low, high)
    np.testing.assert_allclose(moved, [[1 / 3, 0.0]], rtol=1e-12)


def test_levels_are_uniform_inside_the_tolerance():
    target = constraints.two_sided([(2.0, 4.0), (-1.0, 0.0)])
    level = np.asarray(refine.levels(jax.random.key(0), 4000, target, 0.1))
    for column, low, high in ((0, 2.2, 3.8), (1, -0.9, -0.1)):
        assert level[:, column].min() >= low - 1e-6 and level[:, column].max() <= high + 1e-6
        tenths = np.histogram(level[:, column], 10, (low, high))[0]
        assert tenths.min() > 320 and tenths.max() < 480  # 400 expected, deviation 19
    assert abs(np.corrcoef(level.T)[0, 1]) < 0.06


def test_leaving_goes_as_far_as_asked():
    codes, direction = jnp.ones((3, 64)), jnp.zeros((3, 64)).at[:, 0].set(1.0)
    key = jax.random.key(1)
    alone, noisy = refine.Refinement(noise=0.0), refine.Refinement(noise=10.0)
    np.testing.assert_allclose(
        refine.leave(key, codes, direction, 0.5, alone, ALL[:3]), codes - 0.5 * direction, rtol=1e-6
    )
    noise = refine.leave(key, codes, 0 * direction, 0.5, noisy, ALL[:3]) - codes
    np.testing.assert_allclose(jnp.linalg.norm(noise, axis=1), 5.0, rtol=1e-5)
    assert abs(float(noise[0] @ noise[1])) < 0.5 * 25  # each its own


def test_random_parts_lead_from_one_natural_code_to_another():
    natural = jnp.asarray([[0.0, 0.0, 0.0], [3.0, 4.0, 0.0], [0.0, 4.0, 0.0]])
    found = np.asarray(refine.random_directions(jax.random.key(0), jnp.zeros((600, 3)), natural))
    ways, counts = np.unique(found.round(4), axis=0, return_counts=True)
    expected = [[0.6, 0.8, 0], [-0.6, -0.8, 0], [0, 1, 0], [0, -1, 0], [1, 0, 0], [-1, 0, 0]]
    np.testing.assert_allclose(ways, np.unique(expected, axis=0), atol=1e-4)
    assert counts.min() > 60  # 100 expected, deviation 9


def test_equal_natural_codes_lead_anywhere():
    found = np.asarray(
        refine.random_directions(jax.random.key(0), jnp.zeros((500, 3)), jnp.ones((2, 3)))
    )
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    assert np.abs(found.mean(0)).max() < 0.12 and (found.std(0) > 0.5).all()


def test_a_run_steps_along_natural_codes():
    """Natural codes differ in the first entry: the walk leaves the second where the start put it,
    but for the corrections, which the neuron's slope (1, 0) confines to the first as well."""
    flat = toys.neuron(jnp.asarray([[1.0, 0.0]]), jnp.asarray([0.0]))
    start = np.asarray([[0.1, 0.3], [0.2, -0.4]], np.float32)
    natural = Natural(codes=np.asarray([[0.0, 0.0], [1.0, 0.0]]), code_square=1.0)
    settings = Settings(walk="refine", distance="none", diversity=0.0, step=1e-6)
    asked = [Constraint("x", 0.5, 0.8)]
    found = run.sample(flat, asked, start, 20, settings, natural)
    assert found.status == Status.OK
    spread = np.asarray([found.codes[:, 1].min(), found.codes[:, 1].max()])
    free = run.sample(flat, asked, start, 20, settings, natural._replace(codes=None))
    assert np.ptp(spread) < 0.8 < np.ptp(free.codes[:, 1])


@pytest.mark.parametrize("codes", [np.zeros((1, 2)), np.zeros((3, 4)), np.zeros(2)])
def test_natural_codes_of_another_shape_are_refused(codes):
    start = np.zeros((2, 2), np.float32)
    with pytest.raises(ValueError, match="expected natural codes"):
        run.sample(PLANE, [Constraint("x", 0.5, 0.8)], start, 4, None, Natural(codes=codes))


def test_leaving_goes_some_way_to_another_code():
    """Codes are the unit vectors: what is lost of one's own is found at one other."""
    codes, mixed = jnp.eye(40), refine.Refinement(noise=0.0, mixing=0.3)
    found = np.asarray(refine.leave(jax.random.key(3), codes, 0 * codes, 0.1, mixed, ALL))
    share = 1 - np.diag(found)
    moved = share > 1e-6
    assert moved.sum() > 30 and (share[moved] >= 0.15).all() and (share[moved] <= 0.45).all()
    assert np.ptp(share[moved]) > 0.2  # each its own
    others = found - np.diag(np.diag(found))
    np.testing.assert_allclose(others.max(1), np.where(moved, share, 0), atol=1e-6)
    assert len(np.unique(others.argmax(1)[moved])) == moved.sum()  # no code is taken twice
    alone = refine.leave(jax.random.key(3), codes[:1], 0 * codes[:1], 0.1, mixed, ALL[:1])
    np.testing.assert_array_equal(alone, codes[:1])


def test_codes_that_do_not_walk_are_nobodys_way():
    """Codes are the unit vectors: of rows that are alive none goes towards one that is not."""
    codes, mixed = jnp.eye(40), refine.Refinement(noise=0.0, mixing=0.3)
    alive = jnp.arange(40) % 3 > 0
    orders = [refine._another(jax.random.key(n), alive) for n in range(20)]
    assert all((np.sort(order) == np.arange(40)).all() for order in orders)
    assert len(np.unique(orders, axis=0)) == 20
    found = np.asarray(refine.leave(jax.random.key(3), codes, 0 * codes, 0.1, mixed, alive))
    np.testing.assert_array_equal(found[~alive], codes[~alive])
    others = found[alive][:, ~alive]
    np.testing.assert_array_equal(others, np.zeros_like(others))
    assert (np.diag(found)[alive] < 1).sum() > 20


def test_correcting_reaches_the_levels_and_reports_what_it_saw():
    asked = problem(toys.CIRCLE, (0.5, 0.8))
    codes = jnp.asarray([[0.2], [-1.4], [0.85], [1.0]])
    level = jnp.asarray([[0.6], [0.7], [0.65], [0.55]])
    found, seen = refine.correct(
        toys.CIRCLE, codes, level, asked, refine.Refinement(), 1.0, seeds.project, ALL[:4], None
    )
    assert (np.abs(np.cos(found) - level) <= 0.1 * 0.3 + 1e-6).all()
    jax.tree.map(np.testing.assert_array_equal, seen, observe.observe(toys.CIRCLE, found))
    np.testing.assert_array_equal(found[2], codes[2])  # was near already


@pytest.mark.parametrize("micro", [1, 3])
def test_micro_batches_change_nothing(micro):
    asked, codes = problem(toys.CIRCLE, (0.5, 0.8)), jnp.asarray([[0.2], [-1.4], [0.85], [1.2]])
    level = jnp.full((4, 1), 0.6)
    common = (level, asked, refine.Refinement(), 1.0, seeds.project, ALL[:4])
    whole = refine.correct(toys.CIRCLE, codes, *common, None)
    parts = refine.correct(toys.CIRCLE, codes, *common, micro)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), whole, parts)


def test_the_walk_yields_samples_that_are_inside_and_moves_far():
    """sigma 1 and beta 0.1: a code leaves the arc altogether and comes back, often elsewhere."""
    asked, walk, state = walking(refine.Refinement(noise=10.0, reach=5.0))
    after, found = sampler.advance(state, asked, walk, 50, 50)
    first = np.cos(found.codes[..., 0])
    assert found.accepted.mean() > 0.9
    assert ((first >= 0.5) & (first <= 0.8))[np.asarray(found.accepted)].all()
    np.testing.assert_allclose(found.observation.activations[..., 0], first, rtol=1e-5)
    tenths = np.histogram(first[np.asarray(found.accepted)], 10, (0.5, 0.8))[0]
    assert (tenths > 0).all()
    last = found.observation.features[49][found.accepted[49]]
    np.testing.assert_allclose(after.past.mean, diversity.moments(last).mean, rtol=1e-5)


def test_a_code_that_does_not_come_back_stays():
    """One correction of a thousandth: nothing gets home."""
    asked, walk, state = walking(refine.Refinement(noise=10.0, reach=1e-3, corrections=1))
    after, found = sampler.advance(state, asked, walk, 1, 1)
    out = ~np.asarray(found.accepted[0])
    assert out.any()
    np.testing.assert_array_equal(after.codes[out], SEEDS[out])
    np.testing.assert_array_equal(after.images[out], state.images[out])


def test_the_seeds_settle_on_levels_of_their_own():
    asked, walk, state = walking(refine.Refinement(tolerance=0.01))
    codes = jnp.asarray([[0.7], [0.7], [0.7], [-0.7]])  # one picture thrice
    state = state._replace(codes=codes)
    before = observe.observe(toys.CIRCLE, codes)
    after, seen = sampler.resample_seeds(state, before, asked, walk, 1)
    first = np.cos(after.codes[:, 0])
    assert ((first >= 0.5) & (first <= 0.8)).all() and len(np.unique(first.round(4))) == 4
    assert (after.codes != codes).all() and after.step == state.step
    jax.tree.map(np.testing.assert_array_equal, seen, observe.observe(toys.CIRCLE, after.codes))
    np.testing.assert_array_equal(after.images, seen.images)
    mean = diversity.moments(seen.features).mean
    np.testing.assert_allclose(after.past.mean, mean, rtol=1e-6)


def test_a_seed_that_does_not_settle_stays():
    asked, walk, state = walking(refine.Refinement(noise=10.0, reach=1e-3, corrections=1))
    before = observe.observe(toys.CIRCLE, state.codes)
    after, seen = sampler.resample_seeds(state, before, asked, walk, 1)
    stayed = np.asarray((after.codes == state.codes).all(-1))
    assert stayed.any()
    np.testing.assert_array_equal(seen.images[stayed], before.images[stayed])


def test_encodings_take_codes_to_their_pictures_codes():
    """On the plane G and E are the identity: encoding changes nothing, and the level is reached."""
    codes = jnp.asarray([[0.3, 0.1]])
    np.testing.assert_array_equal(refine.encode(PLANE, codes, None), codes)
    walk = sampler.Walk(refinement=refine.Refinement(encodings=2))
    asked = problem(PLANE, (2.0, 3.0))
    state = sampler.init(
        walk,
        codes,
        observe.observe(PLANE, codes),
        multipliers=jnp.zeros((1, 1)),
        penalty=10.0,
        alive=jnp.ones(1, bool),
        length=0.1,
        key=jax.random.key(0),
    )
    _, found = sampler.advance(state, asked, walk, 1, 1)
    assert found.accepted.all()
    assert 2 <= float(3 * found.codes[0, 0, 0] + 4 * found.codes[0, 0, 1] + 1) <= 3


def test_another_key_is_another_sample_from_the_same_start():
    start = jnp.asarray(SEEDS)

    def levels(key):
        asked, settings = [Constraint("x", 0.5, 0.8)], Settings(walk="refine")
        found = run.sample(toys.CIRCLE, asked, start, 204, settings, key=jax.random.key(key))
        return found.activations[4:, 0]

    first, second = levels(1), levels(2)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.3
    np.testing.assert_array_equal(levels(1), first)


def test_a_whole_run_fills_both_arcs_and_repeats_itself():
    start = jnp.asarray([[-1.5], [-0.2], [0.3], [1.4]])
    settings = Settings(walk="refine")

    def sample():
        return run.sample(toys.CIRCLE, [Constraint("x", 0.5, 0.8)], start, 60, settings)

    result, again = sample(), sample()
    assert result.status == Status.OK and len(result.codes) == 60
    assert ((result.activations >= 0.5) & (result.activations <= 0.8)).all()
    assert (result.codes > 0).any() and (result.codes < 0).any()
    np.testing.assert_array_equal(result.codes, again.codes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rule": "paper"}, "walk direct under the paper rule"),
        ({"method": "joint"}, "does not walk"),
        ({"noise": -1.0}, "noise >= 0"),
        ({"noise": float("nan")}, "noise >= 0"),
        ({"encodings": -1}, "encodings >= 0"),
    ],
)
def test_what_cannot_work_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        check(resolve(Settings(walk="refine", **changes)))


def test_seeds_are_refined_whether_or_not_more_samples_are_wanted():
    asked, start = [Constraint("f", 0.2, 0.6)], np.asarray([[-2.0], [-1.0], [0.5], [2.5]], "f4")
    exactly = run.sample(toys.CIRCLE, asked, start, 4, Settings(walk="refine"))
    more = run.sample(toys.CIRCLE, asked, start, 5, Settings(walk="refine"))
    direct = run.sample(toys.CIRCLE, asked, start, 4, Settings())
    assert exactly.status == Status.OK
    np.testing.assert_array_equal(exactly.codes, more.codes[:4])
    assert not (exactly.codes == direct.codes).any()
