"""How independent the points along a chain are; NumPy float64, after the run.

A chain is `[T, F]`, one point a step, in the order in which they were taken.  One autocorrelation
is pooled over the F dimensions, each weighted by its variance.  The mean is the chain's own, so a
drift along a whole short chain looks like correlation.
"""

import math

import numpy as np


def _autocovariances(chain, columns=256):
    """sum_i (x_i - m) . (x_{i+t} - m) of a chain `[T, F]`, m its mean, for every t < T: `[T]`.

    By the Fourier transform of the chain padded to 2 T, so nothing wraps around.
    """
    length = len(chain)
    power = np.zeros(length + 1)
    for start in range(0, chain.shape[1], columns):
        block = np.asarray(chain[:, start : start + columns], np.float64)
        block = block - block[:1]
        spectrum = np.fft.rfft(block - block.mean(0), 2 * length, axis=0)
        power += (spectrum.real**2 + spectrum.imag**2).sum(1)
    return np.fft.irfft(power, 2 * length)[:length]


def _autocorrelations(chain):
    """Autocorrelations `[T]` at lags 0 .. T - 1; NaN where undefined."""
    chain = np.asarray(chain)
    undefined = np.full(len(chain), np.nan)
    if len(chain) < 2 or not np.isfinite(chain).all():
        return undefined
    covariances = _autocovariances(chain)
    return covariances / covariances[0] if covariances[0] > 0 else undefined


def autocorrelation(chain, lags):
    """Autocorrelation of a chain `[T, F]` at each of the lags, in [-1, 1], `[len(lags)]`.

    r_t = sum_i (x_i - m) . (x_{i+t} - m) / sum_i |x_i - m|^2, m the mean: 1 at lag 0.  The sum over
    T - t pairs is not divided by their number, which keeps |r| <= 1 and calms long lags.
    lags: integers >= 0, in steps.  NaN for lags >= T, and for a chain that never moves.
    """
    lags = np.asarray(lags, np.int64)
    if (lags < 0).any():
        raise ValueError(f"expected lags >= 0, got {lags}")
    known = _autocorrelations(chain)
    return np.asarray([known[lag] if lag < len(known) else np.nan for lag in lags], np.float64)


def effective_sample_size(chain):
    """How many independent points a chain `[T, F]` is worth, in (0, T].

    T / (1 + 2 sum_t r_t), t >= 1, summed as long as the pairs r_2m + r_2m+1 stay positive (the
    initial positive sequence, Geyer 1992).  At most T: points that alternate count as independent.
    NaN for T < 2 and for a chain that never moves.
    """
    known = _autocorrelations(chain)
    if len(known) < 2 or np.isnan(known[0]):
        return math.nan
    pairs = known[: len(known) // 2 * 2].reshape(-1, 2).sum(1)
    ends = np.flatnonzero(pairs <= 0)
    time = 2 * pairs[: ends[0] if len(ends) else None].sum() - 1
    return float(len(known) / max(time, 1.0))
