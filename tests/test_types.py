import jax
import jax.numpy as jnp
import numpy as np

from inverse_set.commands.sample import CODES
from inverse_set.types import Status, networks


def _scale(weight, images):
    return images * weight


def test_weights_of_a_partial_are_leaves_and_not_constants():
    """Other weights are other arguments: one compiled function serves both."""
    traced = []

    @jax.jit
    def read(net, images):
        traced.append(1)
        return net.read(images)

    for weight in (2.0, 3.0):
        bound = jax.tree_util.Partial(_scale, jnp.asarray(weight))
        net = networks(jnp.asarray, jnp.sin, bound)
        assert len(jax.tree.leaves(net)) == 1
        features, activations = read(net, jnp.ones((1, 2)))
        np.testing.assert_allclose(features, np.sin(np.ones((1, 2))), rtol=1e-6)
        np.testing.assert_allclose(activations, weight)
    assert len(traced) == 1


def test_images_are_saved_as_they_are_unless_told_otherwise():
    plain = networks(jnp.asarray, jnp.asarray, jnp.asarray)
    rounded = networks(jnp.asarray, jnp.asarray, jnp.asarray, jnp.round)
    assert plain.finish(jnp.asarray(0.7)) == np.float32(0.7)
    assert rounded.finish(jnp.asarray(0.7)) == 1


def test_a_status_says_how_the_run_ended():
    """Only where nothing went wrong does it say that the samples lie inside."""
    fine = {status for status in Status if "every sample" in status.sentence}
    assert fine == {Status.OK, Status.PLATEAU, Status.BUDGET}
    assert {status for status in fine if CODES.get(status) == 0} == fine
    assert all(CODES.get(status) != 0 for status in set(Status) - fine)
    assert len({status.sentence for status in Status}) == len(Status)
