import itertools

import numpy as np

from inverse_set import metrics


def test_distances_of_a_square():
    """Four sides of 1 and two diagonals of sqrt 2."""
    square = np.asarray([[0.0, 0], [0, 1], [1, 0], [1, 1]]) + 1000
    np.testing.assert_allclose(metrics.mean_pair_distance(square), (4 + 2 * 2**0.5) / 6)
    np.testing.assert_allclose(metrics.nearest_neighbour_distance(square), 1.0)


def test_blocks_agree_with_the_pairs_one_by_one():
    points = np.random.default_rng(0).normal(size=(600, 7))
    pairs = [np.linalg.norm(a - b) for a, b in itertools.combinations(points, 2)]
    np.testing.assert_allclose(metrics.mean_pair_distance(points), np.mean(pairs))


def test_duplicates_have_no_distance():
    twice = np.repeat(np.random.default_rng(0).normal(size=(5, 3)), 2, axis=0)
    assert metrics.nearest_neighbour_distance(twice) < 1e-6


def test_fewer_than_two_points():
    assert np.isnan(metrics.mean_pair_distance(np.zeros((1, 3))))
    assert np.isnan(metrics.nearest_neighbour_distance(np.zeros((0, 3))))
