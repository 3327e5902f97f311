import itertools
import math

import numpy as np
import pytest
from scipy import stats

from inverse_set import metrics

NORMAL = np.random.default_rng(0).normal(size=(600, 7))
LINE = np.arange(4.0)[:, None]  # 0, 1, 2, 3


def with_nan(points):
    return np.where(np.arange(points.size).reshape(points.shape) == 1, np.nan, points)


def simplex(n, side):
    """n points, every two of them `side` apart."""
    return np.eye(n) * side / 2**0.5


# Distances


def test_distances_of_a_square():
    """Four sides of 1 and two diagonals of sqrt 2."""
    square = np.asarray([[0.0, 0], [0, 1], [1, 0], [1, 1]]) + 1000
    np.testing.assert_allclose(metrics.mean_pair_distance(square), (4 + 2 * 2**0.5) / 6)
    np.testing.assert_allclose(metrics.nearest_neighbour_distance(square), 1.0)


def test_blocks_agree_with_the_pairs_one_by_one():
    pairs = [np.linalg.norm(a - b) for a, b in itertools.combinations(NORMAL, 2)]
    np.testing.assert_allclose(metrics.mean_pair_distance(NORMAL), np.mean(pairs))


@pytest.mark.parametrize(
    "measure", [metrics.mean_pair_distance, metrics.nearest_neighbour_distance]
)
def test_a_distance_per_dimension(measure):
    """Repeating every dimension four times doubles a distance and leaves it per dimension."""
    repeated = np.repeat(NORMAL, 4, axis=1)
    np.testing.assert_allclose(measure(repeated), 2 * measure(NORMAL))
    expected = measure(NORMAL) / 7**0.5
    np.testing.assert_allclose(measure(NORMAL, per_dimension=True), expected)
    np.testing.assert_allclose(measure(repeated, per_dimension=True), expected)


def test_duplicates_have_no_distance():
    twice = np.repeat(np.random.default_rng(0).normal(size=(5, 3)), 2, axis=0)
    assert metrics.nearest_neighbour_distance(twice) < 1e-6
    assert metrics.mean_pair_distance(np.full((9, 3), 0.1)) == 0.0


@pytest.mark.parametrize(
    "measure", [metrics.mean_pair_distance, metrics.nearest_neighbour_distance]
)
def test_distances_without_pairs_dimensions_or_numbers(measure):
    assert math.isnan(measure(np.zeros((0, 3)))) and math.isnan(measure(np.zeros((1, 3))))
    assert measure(np.zeros((2, 0))) == 0.0
    assert math.isnan(measure(np.zeros((2, 0)), per_dimension=True))
    assert math.isnan(measure(with_nan(NORMAL))) and math.isnan(measure([[0.0], [math.inf]]))


# Vendi score


def test_vendi_score_counts_the_different_points():
    assert metrics.vendi_score(np.full((300, 3), 0.1), 1.0) == pytest.approx(1)
    assert metrics.vendi_score(simplex(300, 100.0), 1.0) == pytest.approx(300)
    clusters = np.repeat(simplex(4, 100.0), 25, axis=0)
    assert metrics.vendi_score(clusters, 1.0) == pytest.approx(4)


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_vendi_score_of_equidistant_points(scale):
    """All pairs alike by a: eigenvalues (1 + (n - 1) a) / n once and (1 - a) / n else."""
    n, side = 40, 2.0
    alike = math.exp(-(side**2) / (2 * scale**2))
    first, rest = (1 + (n - 1) * alike) / n, (1 - alike) / n
    expected = math.exp(-first * math.log(first) - (n - 1) * rest * math.log(rest))
    assert metrics.vendi_score(simplex(n, side), scale) == pytest.approx(expected)


def test_vendi_score_of_two_points_and_its_unit():
    """Eigenvalues (1 + a) / 2 and (1 - a) / 2; the score knows only distance over scale."""
    high, low = (1 + math.exp(-0.5)) / 2, (1 - math.exp(-0.5)) / 2
    expected = high**-high * low**-low
    assert metrics.vendi_score([[1.0], [4.0]], 3.0) == pytest.approx(expected)
    scores = metrics.vendi_score(NORMAL, 2.0), metrics.vendi_score(10 * NORMAL + 5, 20.0)
    assert scores[0] == pytest.approx(scores[1])


def test_vendi_score_of_few_points():
    assert math.isnan(metrics.vendi_score(np.zeros((0, 3)), 1.0))
    assert metrics.vendi_score(np.zeros((1, 3)), 1.0) == 1.0
    assert math.isnan(metrics.vendi_score(with_nan(NORMAL), 1.0))
    assert math.isnan(metrics.vendi_score(NORMAL, math.nan))
    with pytest.raises(ValueError, match="scale > 0"):
        metrics.vendi_score(NORMAL, 0.0)


# Density and coverage


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([[1.5]], (2 / 1, 2 / 4)),  # in the balls of 1 and 2
        ([[0.0]], (2 / 1, 2 / 4)),  # its own, and the edge of 1's
        ([[-0.5], [9.0]], (1 / 2, 1 / 4)),
        ([[50.0]], (0.0, 0.0)),
    ],
)
def test_density_and_coverage_on_a_line(samples, expected):
    """With k = 1 the balls around 0, 1, 2, 3 have radius 1."""
    assert metrics.density_and_coverage(samples, LINE, k=1) == pytest.approx(expected)


def test_density_and_coverage_with_unequal_balls():
    """With k = 2 the balls around 0, 1, 3, 7 reach 3, 2, 3, 6; 4 lies in the last two."""
    real = np.asarray([[0.0], [1], [3], [7]])
    assert metrics.density_and_coverage([[4.0]], real, k=2) == (1.0, 0.5)


def test_real_points_against_themselves():
    """Every ball holds its centre and k more; rounding must not lose the k-th."""
    density, coverage = metrics.density_and_coverage(NORMAL, NORMAL, k=5)
    assert density == pytest.approx(6 / 5) and coverage == 1.0


def test_one_repeated_sample_is_dense_but_covers_little():
    density, coverage = metrics.density_and_coverage(np.zeros((50, 7)), NORMAL, k=5)
    assert density > 1 and coverage < 0.2


def test_density_and_coverage_of_degenerate_sets():
    same = np.full((8, 2), 0.3)
    assert metrics.density_and_coverage(same[:1], same, k=5) == (8 / 5, 1.0)
    density, coverage = metrics.density_and_coverage(np.zeros((0, 1)), LINE, k=1)
    assert math.isnan(density) and coverage == 0.0
    for samples, real in ((LINE, LINE), (LINE, np.zeros((0, 1))), (LINE, with_nan(NORMAL[:, :1]))):
        assert np.isnan(metrics.density_and_coverage(samples, real, k=4)).all()
    with pytest.raises(ValueError, match="k >= 1"):
        metrics.density_and_coverage(LINE, LINE, k=0)


# Kernel distance


@pytest.mark.parametrize("size", [1, 5])
def test_kernel_distance_of_two_spots(size):
    """k is 1 at 0, 8 at ones and 1 between: 1 + 8 - 2."""
    assert metrics.kernel_distance(np.zeros((3, size)), np.ones((4, size))) == pytest.approx(7)


def test_kernel_distance_leaves_out_a_point_with_itself():
    """x = -1, 1 and y = 0, 0: k(-1, 1) = 0, k(0, 0) = 1, all between are 1."""
    assert metrics.kernel_distance([[-1.0], [1.0]], [[0.0], [0.0]]) == pytest.approx(-1)


def test_kernel_distance_agrees_with_the_pairs_one_by_one():
    samples, real = NORMAL[:300], NORMAL[300:570] * 1.2 + 0.1

    def kernel(pairs):
        return np.mean([(x @ y / 7 + 1) ** 3 for x, y in pairs])

    expected = kernel(itertools.combinations(samples, 2)) + kernel(itertools.combinations(real, 2))
    expected -= 2 * kernel(itertools.product(samples, real))
    assert metrics.kernel_distance(samples, real) == pytest.approx(expected)


def test_kernel_distance_is_unbiased():
    """The mean over many small draws of one distribution is 0 within four standard errors."""
    rng = np.random.default_rng(1)
    drawn = [metrics.kernel_distance(*rng.normal(size=(2, 10, 3))) for _ in range(1000)]
    assert abs(np.mean(drawn)) < 4 * np.std(drawn) / 1000**0.5
    assert min(drawn) < 0


def test_kernel_distance_of_too_few():
    for samples in (np.zeros((0, 7)), np.zeros((1, 7)), with_nan(NORMAL)):
        assert math.isnan(metrics.kernel_distance(samples, NORMAL))
        assert math.isnan(metrics.kernel_distance(NORMAL, samples))
    assert math.isnan(metrics.kernel_distance(np.zeros((3, 0)), np.zeros((3, 0))))
    assert metrics.kernel_distance(np.ones((2, 3)), np.ones((2, 3))) == 0.0


# Activations


def test_shares_of_one_constraint():
    """Both ends belong to the interval."""
    found = metrics.shares([[0.5], [1], [1.5], [2], [2.5]], 1, 2)
    assert found == metrics.Shares(inside=3 / 5, beyond=1 / 5, below=1 / 5)


def test_shares_of_an_intersection():
    """Below one interval and above the other is what even one-sided acceptance refuses."""
    activations = [[1.5, 15.0], [2.5, 15.0], [2.5, 25.0], [2.5, 5.0]]
    found = metrics.shares(activations, [1, 10], [2, 20])
    assert found == metrics.Shares(inside=1 / 4, beyond=2 / 4, below=1 / 4)
    assert metrics.shares(activations, [1, 10], math.inf) == metrics.Shares(3 / 4, 0.0, 1 / 4)


def test_shares_of_nothing():
    assert np.isnan(metrics.shares(np.zeros((0, 2)), 0, 1)).all()
    assert np.isnan(metrics.shares([[0.5], [math.nan]], 0, 1)).all()
    assert np.isnan(metrics.shares([[0.5]], math.nan, 1)).all()


def test_deciles_filled():
    """Tenths 0, 0, 4 and 9 (its end included) of [10, 20]; what is outside fills nothing."""
    column = np.asarray([[10.0], [10.9], [14.5], [20.0], [9.9], [20.1]])
    assert metrics.deciles_filled(column, 10, 20) == pytest.approx(0.3)
    assert metrics.deciles_filled(np.linspace(0, 1, 200)[:, None], 0, 1) == 1.0
    assert metrics.deciles_filled(np.full((7, 1), 0.55), 0, 1) == pytest.approx(0.1)


def test_deciles_of_an_intersection_are_averaged():
    both = np.stack([np.linspace(0, 1, 200), np.full(200, 5.0)], axis=1)
    assert metrics.deciles_filled(both, [0, 0], [1, 10]) == pytest.approx(0.55)


def test_deciles_of_nothing():
    assert metrics.deciles_filled(np.zeros((0, 2)), 0, 1) == 0.0
    assert math.isnan(metrics.deciles_filled([[math.nan]], 0, 1))
    assert math.isnan(metrics.deciles_filled([[0.5]], 0, math.inf))
    assert math.isnan(metrics.deciles_filled([[0.5]], 0.5, 0.5))


# Codes and classes


def test_largest_entry():
    each, largest = metrics.largest_entry([[1.0, -3.0], [2.0, 0.0]])
    np.testing.assert_array_equal(each, [3.0, 2.0])
    assert largest == 3.0


def test_largest_entry_of_nothing():
    each, largest = metrics.largest_entry(np.zeros((0, 5)))
    assert each.shape == (0,) and math.isnan(largest)
    each, largest = metrics.largest_entry([[1.0, math.nan], [2.0, 0.0]])
    np.testing.assert_array_equal(each, [math.nan, 2.0])
    assert math.isnan(largest)


@pytest.mark.parametrize(("k", "expected"), [(1, 0.25), (2, 0.5), (3, 1.0), (9, 1.0)])
def test_agreement_of_the_k_highest(k, expected):
    """The wanted class comes first, second, third and, tied with another, third at worst."""
    logits = np.asarray([[5, 1, 0], [5, 9, 0], [1, 3, 2], [1, 1, 2]])
    assert metrics.agreement(logits, 0, k) == expected


def test_agreement_with_a_class_for_each():
    logits = np.asarray([[5.0, 1], [5, 9]])
    assert metrics.agreement(logits, [0, 1]) == 1.0
    assert metrics.agreement(logits, np.asarray([1, 1])) == 0.5


def test_agreement_of_nothing_and_of_no_such_class():
    assert math.isnan(metrics.agreement(np.zeros((0, 3)), 0))
    assert math.isnan(metrics.agreement([[1.0, math.nan]], 0))
    for wanted in (-1, 2):
        with pytest.raises(ValueError, match=r"classes in \[0, 2\)"):
            metrics.agreement([[1.0, 2.0]], wanted)


# Intervals


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 9, 30, 31, 499, 1000])
@pytest.mark.parametrize("level", [0.01, 0.5, 0.9, 0.95, 0.999])
def test_student_quantile_is_scipys(level, degrees):
    found = metrics.student_quantile(level, degrees)
    np.testing.assert_allclose(found, stats.t.ppf((1 + level) / 2, degrees), rtol=1e-9)


def test_interval_of_two_values():
    """With one degree of freedom t is tan(pi / 2 * level), and s / sqrt(2) is half the range."""
    found = metrics.interval([1.0, 3.0])
    half = math.tan(math.pi / 2 * 0.95)
    np.testing.assert_allclose(found, (2.0, 2 - half, 2 + half))


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_interval_is_scipys(level):
    values = NORMAL[:10, 0]
    ends = stats.t.interval(level, 9, values.mean(), stats.sem(values))
    np.testing.assert_allclose(metrics.interval(values, level), (values.mean(), *ends))


def test_interval_of_few_values():
    assert np.isnan(metrics.interval([])).all()
    assert np.isnan(metrics.interval([1.0, math.nan])).all()
    one = metrics.interval([4.0])
    assert one.mean == 4.0 and math.isnan(one.low) and math.isnan(one.high)
    assert metrics.interval([4.0, 4.0, 4.0]) == metrics.Interval(4.0, 4.0, 4.0)
    for level, degrees in ((1.0, 3), (0.0, 3), (0.95, 0)):
        with pytest.raises(ValueError, match="0 < level < 1"):
            metrics.student_quantile(level, degrees)
