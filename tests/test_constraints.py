import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inverse_set import constraints, lagrangian


@pytest.fixture
def values(x64):
    """Activations around an interval [2, 6], multipliers of either sign."""
    keys = jax.random.split(jax.random.key(0))
    activations = jax.random.uniform(keys[0], (40, 1), minval=-1.0, maxval=9.0)
    return activations, jax.random.normal(keys[1], (40, 1)) * 4


@pytest.mark.parametrize("rule", ["two_sided", "paper"])
def test_slacks_minimise_the_lagrangian(values, rule):
    """Against a search over a fine grid of admissible slacks."""
    activations, multipliers = values
    target = getattr(constraints, rule)([(2.0, 6.0)])
    penalty = 3.0
    upper = min(float(target.upper[0, 0]), 30.0)
    grid = jnp.linspace(float(target.lower[0, 0]), upper, 20001)[None]

    def cost(slacks):
        r = constraints.residuals(activations, slacks, target)
        return multipliers * r + penalty / 2 * r**2

    best = grid[0, cost(grid).argmin(1)]
    slacks = constraints.optimal_slacks(activations, multipliers, penalty, target)[:, 0]
    np.testing.assert_allclose(slacks, best, atol=2e-3)


def test_paper_rule_to_the_letter(values):
    """Sec. 3.4 as printed, with the paper's multipliers, which are ours with the sign changed."""
    activations, multipliers = values
    low, high, penalty = 2.0, 6.0, 3.0
    target = constraints.paper([(low, high)])
    epsilon = high - low
    theirs = -multipliers
    shifted = epsilon / 2 - high + activations
    printed_slack = jnp.maximum(0, shifted - theirs / penalty)
    slacks = constraints.optimal_slacks(activations, multipliers, penalty, target)
    np.testing.assert_allclose(slacks - (low + high) / 2, printed_slack, atol=1e-12)
    printed = -theirs * (shifted - printed_slack) + penalty / 2 * (shifted - printed_slack) ** 2
    terms = lagrangian.constraint_terms(activations, multipliers, penalty, target)
    np.testing.assert_allclose(terms, printed[:, 0], atol=1e-12)
    updated = lagrangian.update_multipliers(activations, multipliers, penalty, target)
    np.testing.assert_allclose(-updated, jnp.maximum(theirs - penalty * shifted, 0), atol=1e-12)
    accepted = constraints.inside(activations, target)
    np.testing.assert_array_equal(accepted, (high - activations <= epsilon)[:, 0])


def test_two_sided_acceptance_is_eq_1():
    target = constraints.two_sided([(2.0, 6.0)])
    values = jnp.asarray([[1.999], [2.0], [4.0], [6.0], [6.001], [jnp.nan]])
    expected = [False, True, True, True, False, False]
    assert constraints.inside(values, target).tolist() == expected


def test_an_intersection_needs_every_constraint():
    target = constraints.two_sided([(0.0, 1.0), (10.0, 30.0)])
    values = jnp.asarray([[0.5, 20.0], [0.5, 31.0], [2.0, 20.0]])
    assert constraints.inside(values, target).tolist() == [True, False, False]
    np.testing.assert_allclose(constraints.violations(values, target), [0, 0.05, 1.0], atol=1e-6)


def test_residuals_are_free_of_units():
    """The same neuron in other units has the same residuals, slacks and acceptance."""
    small = constraints.two_sided([(2.0, 6.0)])
    large = constraints.two_sided([(2000.0, 6000.0)])
    values, multipliers = jnp.asarray([[1.0], [7.5]]), jnp.asarray([[0.5], [-2.0]])
    a = lagrangian.constraint_terms(values, multipliers, 10.0, small)
    b = lagrangian.constraint_terms(values * 1000, multipliers, 10.0, large)
    np.testing.assert_allclose(a, b, rtol=1e-5)


def test_guard_shrinks_what_is_accepted():
    target = constraints.two_sided([(2.0, 6.0)], guard=0.01)
    values = jnp.asarray([[2.03], [2.05], [5.95], [5.97]])
    assert constraints.inside(values, target).tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    "bad",
    [[(1.0, 1.0)], [(2.0, 1.0)], [(-np.inf, np.inf)], [(np.nan, 1.0)], [(np.inf, np.inf)], []],
)
@pytest.mark.parametrize("rule", [constraints.two_sided, constraints.paper])
def test_intervals_that_cannot_be(rule, bad):
    with pytest.raises(ValueError, match="expected intervals low < high"):
        rule(bad)


def test_intervals_with_one_end():
    """What stands for the width sets the margin; nothing is held against the end that is not."""
    target = constraints.two_sided([(2.0, np.inf), (-np.inf, 3.0)], 0.25, 0.1, scales=[4.0, 2.0])
    assert target.lower.tolist() == [[3.0, -np.inf]] and target.upper.tolist() == [[np.inf, 2.5]]
    values = jnp.asarray([[2.3, -1e9], [2.5, 2.7], [1e9, 2.9], [1e9, -1e9]])
    assert constraints.inside(values, target).tolist() == [False, True, False, True]
    assert constraints.violations(values, target).tolist() == pytest.approx(
        [0.025, 0, 0.05, 0], rel=1e-5
    )
    slacks = constraints.optimal_slacks(values, jnp.zeros((4, 2)), 1.0, target)
    assert slacks.tolist() == [[3, -1e9], [3, 2.5], [1e9, 2.5], [1e9, -1e9]]
    with pytest.raises(ValueError, match="two ends"):
        constraints.paper([(2.0, np.inf)])
