import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from inverse_set import constraints, seeds
from inverse_set.types import Status, networks
from tests import toys

ADAM = optax.adam(0.05)


def problem(net, interval, weight=0.01, margin=0.2):
    target = constraints.two_sided([interval], margin)
    return seeds.Problem(net, target, jnp.asarray(weight), jnp.asarray(1.0))


def solve(problem, descent, codes):
    state = seeds.init(problem, descent, codes)
    return seeds.advance(state, problem, descent, 2**30)


def test_seeds_reach_the_arcs_and_stop_as_soon_as_all_are_inside():
    codes = jnp.linspace(-3, 3, 10)[:, None]
    circle = problem(toys.CIRCLE, (0.5, 0.8))
    descent = seeds.Descent(ADAM)
    state = solve(circle, descent, codes)
    assert Status(int(state.status)) == Status.OK
    first = jnp.cos(state.best.codes[:, 0])
    assert ((first >= 0.5) & (first <= 0.8)).all()
    np.testing.assert_array_equal(state.codes, state.best.codes)
    one_earlier = seeds.advance(seeds.init(circle, descent, codes), circle, descent, state.step)
    assert int(one_earlier.best.inside.sum()) < 10


@pytest.mark.parametrize("low", [0.2, 0.5, 0.8])
def test_two_fully_optimised_codes_lie_at_the_ends_of_the_chord(low, x64):
    """Closed form: the best pair on the arcs cos t >= z1 is 2 sqrt(1 - z1^2) apart."""
    circle = problem(toys.CIRCLE, (low, 1.0), weight=0.05, margin=0.01)
    gentle = {"growth": 2.0, "penalty_cap": 100.0, "max_steps": 5000, "plateau_steps": 1000}
    descent = seeds.Descent(optax.adam(0.01, b2=0.9), stop="plateau", **gentle)
    state = solve(circle, descent, jnp.asarray([[-1.3], [1.4]]))
    a, b = state.best.observation.images
    assert Status(int(state.status)) == Status.PLATEAU
    aimed_at = low + 0.01 * (1 - low)
    apart = jnp.linalg.norm(a - b)
    assert 0.998 * 2 * (1 - aimed_at**2) ** 0.5 <= apart <= 2 * (1 - low**2) ** 0.5


def test_pieces_of_a_run_are_the_run_bit_for_bit():
    codes = jax.random.uniform(jax.random.key(0), (8, 1), minval=-3, maxval=3)
    circle, descent = problem(toys.CIRCLE, (0.7, 0.71)), seeds.Descent(ADAM, inner_steps=7)
    whole = solve(circle, descent, codes)
    state = seeds.init(circle, descent, codes)
    for until in range(3, 2000, 3):
        state = seeds.advance(state, circle, descent, until)
    assert int(whole.step) > 20
    jax.tree.map(np.testing.assert_array_equal, state, whole)


def test_a_second_run_compiles_nothing():
    circle, descent = problem(toys.CIRCLE, (0.5, 0.8)), seeds.Descent(ADAM)
    solve(circle, descent, jnp.ones((3, 1)))
    size = seeds.advance._cache_size()
    other = problem(toys.CIRCLE, (0.1, 0.2))
    solve(other, descent, jnp.zeros((3, 1)))
    assert seeds.advance._cache_size() == size


def test_the_loop_never_talks_to_the_host():
    circle, descent = problem(toys.CIRCLE, (0.5, 0.8)), jax.device_put(seeds.Descent(ADAM))
    state = seeds.init(circle, descent, jnp.ones((4, 1)))
    until = jnp.int32(50)
    seeds.advance(state, circle, descent, until)
    with jax.transfer_guard("disallow"):
        seeds.advance(state, circle, descent, until)


def test_an_unreachable_interval_says_the_nearest_activation():
    descent = seeds.Descent(ADAM, max_steps=400)
    state = solve(problem(toys.CIRCLE, (1.5, 1.8)), descent, jnp.asarray([[2.0], [-1.0]]))
    assert Status(int(state.status)) == Status.INFEASIBLE
    assert int(state.step) == 400
    np.testing.assert_allclose(state.nearest, 1.0, atol=1e-4)
    np.testing.assert_allclose(state.gap, 0.5 / 0.3, atol=1e-3)


@pytest.mark.parametrize(("wait", "more"), [(None, 300), (50, 50), (299, 299), (1, 1)])
def test_what_was_inside_is_kept_when_the_rest_cannot_follow(wait, more):
    """The last code starts where the generator has no slope, and is waited for from when the
    second came inside, not from the first."""
    net = networks(lambda c: jnp.maximum(c, 0.0), lambda x: x, lambda x: x)
    descent = seeds.Descent(ADAM, distance="none", max_steps=300, give_up_after=wait or seeds.NEVER)
    asked, start = problem(net, (1.0, 2.0)), jnp.asarray([[1.5], [0.97], [-5.0]])
    state = solve(asked, descent, start)
    assert Status(int(state.status)) == Status.PARTIAL
    assert state.best.inside.tolist() == [True, True, False]
    assert int(state.last_gain_step) == 1 and int(state.step) == min(1 + more, 300)


def test_none_inside_is_no_reason_to_give_up():
    net = networks(lambda c: jnp.maximum(c, 0.0), lambda x: x, lambda x: x)
    descent = seeds.Descent(optax.sgd(1e-4), distance="none", max_steps=3000, give_up_after=5)
    state = solve(problem(net, (1.0, 2.0)), descent, jnp.asarray([[0.9]]))
    assert Status(int(state.status)) == Status.OK and int(state.step) > 100


def test_a_nan_ends_the_run_with_the_last_good_codes():
    net = networks(lambda c: jnp.sqrt(c), lambda x: x, lambda x: x)
    start = jnp.asarray([[0.01]])
    state = solve(problem(net, (-3.0, -2.0)), seeds.Descent(ADAM), start)
    assert Status(int(state.status)) == Status.NON_FINITE
    assert jnp.isfinite(state.best.codes).all()


def test_multipliers_and_penalty_follow_the_outer_rounds():
    """lambda <- lambda + mu (f - s*) / scale, then mu <- alpha mu, once every inner_steps."""
    net = networks(lambda c: c, lambda x: x, lambda x: x)
    asked = problem(net, (1.0, 2.0), margin=0.25)
    still = seeds.Descent(optax.sgd(0.0), inner_steps=5, max_steps=16, penalty_cap=50.0)
    state = solve(asked, still, jnp.asarray([[0.25]]))
    # f = 0.25 never moves; lambda = 0, then s* = clip(f + lambda / mu) = 1.25, so r = -1.
    assert int(state.step) == 16
    np.testing.assert_allclose(state.penalty, 50.0)
    np.testing.assert_allclose(state.multipliers, [[-(10 + 50 + 50)]])


def test_the_run_ends_with_the_multipliers_of_its_last_inner_solve():
    """One SGD step a round takes the code inside; the update due at that look is not applied."""
    net = networks(lambda c: c, lambda x: x, lambda x: x)
    asked = problem(net, (1.0, 2.0), weight=0.0, margin=0.25)
    descent = seeds.Descent(optax.sgd(0.1), inner_steps=1)
    state = solve(asked, descent, jnp.asarray([[0.25]]))
    # Gradient of mu / 2 (f - 1.25)^2 at 0.25 is -10: one step of 0.1 lands on 1.25.
    assert int(state.step) == 1
    assert float(state.penalty) == 10 and float(state.multipliers[0, 0]) == 0


def test_codes_stay_in_their_box():
    net = networks(lambda c: c, lambda x: x, lambda x: x.sum(-1, keepdims=True))
    box = {"lower": jnp.zeros((1, 2)), "upper": jnp.ones((1, 2))}
    asked = problem(net, (1.7, 1.8))._replace(**box)
    state = solve(asked, seeds.Descent(ADAM), jnp.asarray([[-4.0, 0.2], [0.3, 9.0]]))
    assert Status(int(state.status)) == Status.OK
    assert (state.best.codes >= 0).all() and (state.best.codes <= 1).all()


def test_no_distance_no_diversity():
    """Eq. 15 from one start: identical codes stay identical."""
    descent = seeds.Descent(ADAM, distance="none")
    state = solve(problem(toys.CIRCLE, (0.5, 0.8)), descent, jnp.full((4, 1), 2.0))
    assert Status(int(state.status)) == Status.OK
    assert jnp.ptp(state.best.codes) == 0


def test_degenerate_problem_under_debug_nans():
    """Identical starts, zero diversity gradient: nothing divides by zero."""
    with jax.debug_nans(True):
        state = solve(problem(toys.CIRCLE, (0.5, 0.8)), seeds.Descent(ADAM), jnp.zeros((3, 1)))
    assert jnp.isfinite(state.codes).all()
