"""The installed JAX computes what it is asked for; pyproject.toml leaves out those that do not."""

import jax
import numpy as np


def test_many_small_products_in_one_program():
    """Right up to jax 0.9.0.1 and from 0.11.0 on; in between wrong by about 8 on a CPU."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(3, 3)).astype(np.float32)
    rows = rng.normal(size=(40_000, 3)).astype(np.float32)
    sums = jax.jit(jax.vmap(lambda row: (matrix @ row).sum()))(rows)
    expected = (rows.astype(np.float64) @ matrix.T.astype(np.float64)).sum(1)
    assert np.abs(np.asarray(sums) - expected).max() < 1e-5
