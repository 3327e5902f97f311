"""What is reported about a sample; NumPy float64, after the run.

Points are `[n, F]`.  Input that is not finite gives NaN, and so does a figure of too few points.
"""

import math
from typing import NamedTuple

import numpy as np

TIE = 1e-9  # relative: a point this little outside a ball lies on its sphere but for rounding


class Shares(NamedTuple):
    """Where activations lie, as shares of all samples; they add up to 1.

    inside: every constraint holds.
    beyond: no activation is below its interval, but some are above: one-sided acceptance alone.
    below: some activation is below its interval.
    """

    inside: float
    beyond: float
    below: float


class Interval(NamedTuple):
    """A mean over repetitions and the ends of its confidence interval, in the figure's own unit."""

    mean: float
    low: float
    high: float


def _finite(*arrays):
    return all(np.isfinite(array).all() for array in arrays)


def _points(*sets):
    """Sets of points as float64."""
    return [np.asarray(points, np.float64) for points in sets]


def _square_distances(points, others, rows=256):
    """(first row, `[rows, m]`) blocks of |x_i - y_j|^2 between points `[n, F]` and `[m, F]`.

    Taken from the products of points, with the origin moved to the first of the others: sums of
    squares cancel less, and copies of one point are exactly 0 apart.
    """
    points, others = points - others[:1], others - others[:1]
    squares, other_squares = (points**2).sum(1), (others**2).sum(1)
    for start in range(0, len(points), rows):
        block = slice(start, start + rows)
        square = squares[block, None] + other_squares[None] - 2 * points[block] @ others.T
        yield start, np.maximum(square, 0.0)


def pair_distances(points, rows=256):
    """Distances between points `[n, F]`, as blocks `[rows, n]` with +inf on the diagonal."""
    (points,) = _points(points)
    for start, square in _square_distances(points, points, rows):
        own = np.arange(len(square))
        square[own, start + own] = np.inf
        yield np.sqrt(square)


def _scaled(distance, points, per_dimension):
    """The distance, or divided by sqrt(F); NaN without dimensions."""
    if not per_dimension:
        return float(distance)
    size = np.shape(points)[1]
    return float(distance / size**0.5) if size else math.nan


def mean_pair_distance(points, per_dimension=False):
    """Mean over i < j of |x_i - x_j|, points `[n, F]`; NaN for fewer than two.

    per_dimension: divide by sqrt(F), the figure of the paper's table 1.
    """
    n = len(points)
    if n < 2 or not _finite(points):
        return math.nan
    total = sum(block[np.isfinite(block)].sum() for block in pair_distances(points))
    return _scaled(total / (n * (n - 1)), points, per_dimension)


def nearest_neighbour_distance(points, per_dimension=False):
    """Mean over i of min over j != i of |x_i - x_j|, points `[n, F]`; NaN for fewer than two.

    per_dimension: divide by sqrt(F).
    """
    if len(points) < 2 or not _finite(points):
        return math.nan
    nearest = np.concatenate([block.min(1) for block in pair_distances(points)])
    return _scaled(nearest.mean(), points, per_dimension)


def vendi_score(points, scale):
    """How many different points `[n, F]` there are in effect, in [1, n]; NaN for none.

    exp(-sum_i l_i log l_i) over the eigenvalues l of K / n, K_ij = exp(-|x_i - x_j|^2 / 2 scale^2).
    scale: the kernel's bandwidth > 0, in units of distance; points that far apart are alike by
    exp(-1/2).  The distance of two natural pictures makes scores of different samples comparable.
    """
    if scale <= 0:
        raise ValueError(f"expected a scale > 0, got {scale}")
    if not len(points) or not _finite(points, scale):
        return math.nan
    (points,) = _points(points)
    kernel = np.empty((len(points), len(points)))
    for start, square in _square_distances(points, points):
        kernel[start : start + len(square)] = np.exp(-square / (2 * scale**2))
    shares = np.linalg.eigvalsh(kernel / len(points))
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def density_and_coverage(samples, real, k=5):
    """(density, coverage) of samples `[n, F]` against real points `[m, F]` (Naeem et al. 2020).

    Around every real point lies a closed ball that reaches to its k-th nearest real neighbour.
    density: how many balls a sample lies in, on average, divided by k; >= 0, may exceed 1.
    coverage: the share of balls that hold a sample, in [0, 1].
    Both are NaN if m <= k; without samples the coverage is 0 and the density NaN.
    """
    if k < 1:
        raise ValueError(f"expected k >= 1, got {k}")
    if len(real) <= k or not _finite(samples, real):
        return math.nan, math.nan
    if not len(samples):
        return math.nan, 0.0
    samples, real = _points(samples, real)
    kth = [np.partition(block, k - 1)[:, k - 1] for block in pair_distances(real)]
    reach = np.concatenate(kth) * (1 + TIE)
    held, covered = 0, np.zeros(len(real), bool)
    for _, square in _square_distances(samples, real):
        within = np.sqrt(square) <= reach
        held += within.sum()
        covered |= within.any(0)
    return float(held / (k * len(samples))), float(covered.mean())


def _kernel_sum(points, others, rows=256):
    """Sum of (x_i . y_j / F + 1)^3 over all pairs of points `[n, F]` and `[m, F]`."""
    size, blocks = points.shape[1], range(0, len(points), rows)
    return sum(((points[i : i + rows] @ others.T / size + 1) ** 3).sum() for i in blocks)


def _kernel_mean(points):
    """Mean of the kernel over i != j."""
    n, size = points.shape
    own = (((points**2).sum(1) / size + 1) ** 3).sum()
    return (_kernel_sum(points, points) - own) / (n * (n - 1))


def kernel_distance(samples, real):
    """Squared distance of two distributions, from samples `[n, F]` and real points `[m, F]`.

    The unbiased MMD^2 of the kernel k(x, y) = (x . y / F + 1)^3 (KID, Binkowski et al. 2018):
    mean k(x_i, x_j) + mean k(y_i, y_j) over i != j, minus 2 mean k(x_i, y_j).  It is 0 in
    expectation where the distributions are one, so it may be negative.  NaN if n or m < 2 or F = 0.
    """
    if min(len(samples), len(real)) < 2 or not _finite(samples, real) or not np.shape(real)[1]:
        return math.nan
    samples, real = _points(samples, real)
    across = _kernel_sum(samples, real) / (len(samples) * len(real))
    return float(_kernel_mean(samples) + _kernel_mean(real) - 2 * across)


def shares(activations, low, high):
    """`Shares` of activations `[n, P]` inside, beyond and below the intervals [low, high].

    low, high: scalars or `[P]`, in units of the neurons' outputs.  All NaN for n = 0.
    """
    unknown = np.isnan(low).any() or np.isnan(high).any()  # an end may be infinite
    if unknown or not len(activations) or not _finite(activations):
        return Shares(math.nan, math.nan, math.nan)
    (activations,) = _points(activations)
    below = (activations < low).any(1)
    beyond = (activations > high).any(1) & ~below
    return Shares(float((~below & ~beyond).mean()), float(beyond.mean()), float(below.mean()))


def deciles_filled(activations, low, high):
    """Share of the tenths of [low, high] that hold a sample, in [0, 1], the mean over constraints.

    activations: `[n, P]`.  low, high: scalars or `[P]`.  What lies outside fills nothing; `high`
    itself belongs to the last tenth.  NaN if an interval is infinite or has no width.
    """
    activations, low, high = _points(activations, low, high)
    if not _finite(activations, low, high) or (high <= low).any():
        return math.nan
    tenth = np.minimum(np.floor(10 * (activations - low) / (high - low)), 9)
    inside = (activations >= low) & (activations <= high)
    filled = [((tenth == i) & inside).any(0) for i in range(10)]
    return float(np.mean(filled))


def largest_entry(codes):
    """(`[n]` max over d of |c_d| of each code, the largest of all) of codes `[n, D]` (sec. 4.1).

    The largest of all is NaN for n = 0; NaN in a code shows in both.
    """
    (codes,) = _points(codes)
    each = np.abs(codes).max(1) if codes.size else np.full(len(codes), math.nan)
    return each, float(each.max()) if len(each) else math.nan


def agreement(logits, wanted, k=1):
    """Share of samples whose wanted class is among the k highest of a second classifier, in [0, 1].

    logits: `[n, C]`.  wanted: 0-based class, a scalar or `[n]`.  A tie counts against the wanted
    class.  NaN for n = 0.
    """
    if not len(logits) or not _finite(logits):
        return math.nan
    logits = np.asarray(logits)
    wanted = np.broadcast_to(np.asarray(wanted), len(logits))
    if wanted.min() < 0 or wanted.max() >= logits.shape[1]:
        raise ValueError(f"expected classes in [0, {logits.shape[1]}), got {np.unique(wanted)}")
    own = logits[np.arange(len(logits)), wanted]
    as_high = (logits >= own[:, None]).sum(1)
    return float((as_high <= k).mean())


def _student_level(angle, degrees):
    """P(|T| <= sqrt(degrees) tan(angle)) of Student's T, integer degrees of freedom >= 1.

    The finite sums of Abramowitz and Stegun 26.7.3 (odd) and 26.7.4 (even).
    """
    sine, cosine, odd = math.sin(angle), math.cos(angle), degrees % 2
    terms = np.arange(1, (degrees - odd) // 2)
    factors = (2 * terms - 1 + odd) / (2 * terms + odd) * cosine**2
    series = 1 + np.cumprod(factors).sum()
    if not odd:
        return sine * series
    return 2 / math.pi * (angle + (sine * cosine * series if degrees > 1 else 0.0))


def student_quantile(level, degrees):
    """The t >= 0 with P(|T| <= t) = level, 0 < level < 1, T Student with `degrees` of freedom."""
    if not 0 < level < 1 or degrees < 1:
        raise ValueError(f"expected 0 < level < 1 and degrees >= 1, got {level} and {degrees}")
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if _student_level(middle, degrees) < level:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan(low)


def interval(values, level=0.95):
    """`Interval` of the mean of a figure over repetitions (seeds) `[n]`.

    mean -+ t s / sqrt(n), s the standard deviation with n - 1, t Student's two-sided quantile with
    n - 1 degrees of freedom.  The ends are NaN for n = 1, everything for n = 0.
    """
    (values,) = _points(values)
    n = len(values)
    if not n or not _finite(values):
        return Interval(math.nan, math.nan, math.nan)
    mean = float(values.mean())
    if n == 1:
        return Interval(mean, math.nan, math.nan)
    half = student_quantile(level, n - 1) * float(values.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)
