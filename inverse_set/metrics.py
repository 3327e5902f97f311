"""What is reported about a sample; NumPy, after the run."""

import numpy as np


def pair_distances(points, rows=256):
    """Distances between points `[n, F]`, as blocks `[rows, n]` with +inf on the diagonal."""
    points = np.asarray(points, np.float64)
    points = points - points.mean(0)
    squares = (points**2).sum(1)
    for start in range(0, len(points), rows):
        block = points[start : start + rows]
        square = squares[start : start + rows, None] + squares[None] - 2 * block @ points.T
        distances = np.sqrt(np.maximum(square, 0.0))
        distances[np.arange(len(block)), start + np.arange(len(block))] = np.inf
        yield distances


def mean_pair_distance(points):
    """Mean over i < j of |e_i - e_j|, points `[n, F]`; NaN for fewer than two.

    Divided by sqrt(F) it is the figure of the paper's table 1.
    """
    n = len(points)
    if n < 2:
        return float("nan")
    total = sum(block[np.isfinite(block)].sum() for block in pair_distances(points))
    return float(total / (n * (n - 1)))


def nearest_neighbour_distance(points):
    """Mean over i of min over j != i of |e_i - e_j|, points `[n, F]`; NaN for fewer than two."""
    if len(points) < 2:
        return float("nan")
    return float(np.concatenate([block.min(1) for block in pair_distances(points)]).mean())
