import math

import numpy as np
import pytest

from inverse_set import chains


def autoregressive(length, size, keep, seed=0):
    """A stationary chain x_t = keep x_{t-1} + noise of variance 1 in every dimension."""
    noise = np.random.default_rng(seed).normal(size=(length, size))
    chain = noise.copy()
    for t in range(1, length):
        chain[t] = keep * chain[t - 1] + (1 - keep**2) ** 0.5 * noise[t]
    return chain


def test_autocorrelation_of_four_points():
    """About their mean -3, -1, 1, 3: products add up to 20, then 5, -6 and -9."""
    chain = np.asarray([[0.0], [2], [4], [6]])
    expected = np.asarray([20, 3 - 1 + 3, -3 - 3, -9]) / 20
    np.testing.assert_allclose(chains.autocorrelation(chain, [0, 1, 2, 3]), expected)


def test_autocorrelation_pools_dimensions_by_their_variance():
    """One dimension alternates, the other, of four times its variance, changes sign once."""
    fast, slow = np.asarray([1.0, -1, 1, -1]), np.asarray([2.0, 2, -2, -2])
    expected = np.asarray([4 + 16, -3 + 4, 2 - 8]) / 20
    chain = np.stack([fast, slow], axis=1) + 7
    np.testing.assert_allclose(chains.autocorrelation(chain, [0, 1, 2]), expected)


def test_blocks_of_columns_agree_with_the_sums():
    chain = autoregressive(37, 600, 0.7)
    centred = chain - chain.mean(0)
    sums = [(centred[: 37 - t] * centred[t:]).sum() for t in range(37)]
    np.testing.assert_allclose(
        chains.autocorrelation(chain, range(37)), np.asarray(sums) / sums[0], atol=1e-12
    )


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9])
def test_autocorrelation_of_an_autoregressive_chain(keep):
    lags = np.asarray([0, 1, 2, 5, 10])
    found = chains.autocorrelation(autoregressive(2000, 40, keep), lags)
    np.testing.assert_allclose(found, keep**lags, atol=0.03)


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.8])
def test_effective_sample_size_of_an_autoregressive_chain(keep):
    """T (1 - rho) / (1 + rho), which for independent points is T."""
    length = 3000
    found = chains.effective_sample_size(autoregressive(length, 40, keep))
    assert found == pytest.approx(length * (1 - keep) / (1 + keep), rel=0.1)


def test_effective_sample_size_has_no_unit():
    chain = autoregressive(200, 5, 0.5)
    expected = chains.effective_sample_size(chain)
    assert chains.effective_sample_size(3 * chain + 100) == pytest.approx(expected)


def test_alternating_points_count_as_independent():
    chain = np.tile([[1.0], [-1.0]], (50, 1))
    assert chains.effective_sample_size(chain) == 100


def test_a_drift_is_worth_few_points():
    """A straight line of 100 steps: one long excursion."""
    assert chains.effective_sample_size(np.arange(100.0)[:, None]) < 5


@pytest.mark.parametrize(
    "chain",
    [
        np.zeros((0, 3)),
        np.zeros((1, 3)),
        np.full((50, 3), 0.1),
        np.zeros((5, 0)),
        np.asarray([[0.0], [math.nan], [1.0]]),
        np.asarray([[0.0], [math.inf], [1.0]]),
    ],
)
def test_chains_that_say_nothing(chain):
    assert np.isnan(chains.autocorrelation(chain, [0, 1])).all()
    assert math.isnan(chains.effective_sample_size(chain))


def test_two_points_and_lags_beyond_the_end():
    """Two points lie opposite about their mean."""
    chain = np.asarray([[0.0], [2.0]])
    np.testing.assert_allclose(chains.autocorrelation(chain, [0, 1, 2]), [1, -0.5, np.nan])
    assert chains.effective_sample_size(chain) == 2.0
    with pytest.raises(ValueError, match="lags >= 0"):
        chains.autocorrelation(chain, [-1])
