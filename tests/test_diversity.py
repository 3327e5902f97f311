import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inverse_set import diversity
from inverse_set.types import Observation


def naive_pair_sum(points):
    return sum(jnp.sum((a - b) ** 2) for a in points for b in points)


def naive_cross_sum(points, past):
    return sum(jnp.sum((a - b) ** 2) for a in points for b in past)


@pytest.fixture
def points(x64):
    return jax.random.normal(jax.random.key(0), (7, 5)) + 3.0


@pytest.fixture
def past(x64):
    return jax.random.normal(jax.random.key(1), (4, 5))


def test_eq_6_is_the_sum_over_ordered_pairs(points):
    np.testing.assert_allclose(diversity.pair_sum(points), naive_pair_sum(points), rtol=1e-12)


def test_separable_terms_sum_to_eq_7_and_have_its_gradient(points, past):
    fixed = diversity.moments(past)
    mean = points.mean(0)

    def split(points):
        return diversity.separable_pair_terms(points, 7, mean, fixed).sum()

    def naive(points):
        return naive_pair_sum(points) + naive_cross_sum(points, past)

    np.testing.assert_allclose(split(points), naive(points), rtol=1e-12)
    np.testing.assert_allclose(jax.grad(split)(points), jax.grad(naive)(points), rtol=1e-11)


def test_moments_merge_like_the_union(points, past):
    merged = diversity.merge(diversity.moments(points), diversity.moments(past))
    whole = diversity.moments(jnp.concatenate([points, past]))
    for a, b in zip(merged, whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    empty = diversity.merge(diversity.no_points(5, points.dtype), diversity.moments(past))
    np.testing.assert_allclose(empty.scatter, diversity.moments(past).scatter, rtol=1e-12)


def test_moments_leave_out_points_of_weight_zero(points):
    kept = jnp.asarray([True, False, True, True, False, False, True])
    weighted, chosen = diversity.moments(points, kept), diversity.moments(points[kept])
    for a, b in zip(weighted, chosen, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_no_cancellation_far_from_the_origin():
    """Two large sums differ in nothing but rounding at 1e4; the centred form does not care."""
    near = jax.random.normal(jax.random.key(2), (50, 8))
    far = diversity.pair_sum(near + 1e4)
    np.testing.assert_allclose(far, diversity.pair_sum(near), rtol=1e-3)


def test_distance_is_taken_between_what_is_asked():
    codes = jnp.ones((2, 3))
    observation = Observation(jnp.zeros((2, 4, 4, 3)), jnp.full((2, 6), 2.0), jnp.zeros((2, 1)))
    shapes = {
        name: diversity.points_of(name, codes, observation).shape for name in diversity.DISTANCES
    }
    assert shapes == {"encoder": (2, 6), "image": (2, 48), "code": (2, 3), "none": (2, 0)}
    assert diversity.pair_sum(diversity.points_of("none", codes, observation)) == 0
    with pytest.raises(ValueError, match="expected a distance among"):
        diversity.points_of("pixels", codes, observation)
