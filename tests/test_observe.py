import jax.numpy as jnp
import numpy as np
import pytest

from inverse_set import observe
from tests import toys


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10])
def test_batches_are_the_whole_in_order(size):
    codes = jnp.arange(7.0)[:, None]
    whole = observe.observe(toys.CIRCLE, codes)
    parts = observe.map_batches(lambda c: observe.observe(toys.CIRCLE, c), size, codes)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    activations = observe.activations_of(toys.CIRCLE, codes, size)
    np.testing.assert_allclose(activations, whole.activations, rtol=1e-6)


def test_the_last_batch_is_filled_with_zeros():
    (batches,) = observe.cut(3, jnp.ones((4, 2)))
    assert batches.shape == (2, 3, 2) and batches.sum() == 8
