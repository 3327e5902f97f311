"""Pictures and what networks read: closed forms, in NumPy and in JAX."""

import jax.numpy as jnp
import numpy as np
import pytest

from inverse_set.models import caffenet
from inverse_set.models.pixels import Pixels, from_pictures, to_pictures

SCALES = (Pixels(2.0, (0.5, 0.25, 1.0)), Pixels(255.0, (1.0, 2.0, 3.0), bgr=True), caffenet.DRAWN)


def pictures(side=5, count=2):
    return np.random.default_rng(0).random((count, side, side + 1, 3), np.float32)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("library", [np, jnp])
def test_each_undoes_the_other(scale, library):
    images = library.asarray(pictures())
    assert type(from_pictures(scale, images)) is type(images)
    np.testing.assert_allclose(to_pictures(scale, from_pictures(scale, images)), images, atol=1e-6)
    drawn = library.asarray(300 * pictures() - 150)
    np.testing.assert_allclose(from_pictures(scale, to_pictures(scale, drawn)), drawn, atol=1e-4)


def test_the_default_is_a_gain_alone():
    images = pictures()
    np.testing.assert_array_equal(from_pictures(Pixels(2.0), images), 2 * images)
    np.testing.assert_array_equal(to_pictures(Pixels(2.0), 2 * images), images)


def test_red_is_read_last():
    """The mean counts in the network's order: its first entry is blue's."""
    red = np.array([1.0, 0.0, 0.0], np.float32).reshape(1, 1, 1, 3)
    scale = Pixels(255.0, (10.0, 20.0, 30.0), bgr=True)
    np.testing.assert_array_equal(from_pictures(scale, red).ravel(), [-10, -20, 225])
    np.testing.assert_array_equal(to_pictures(scale, np.array([[[[-10.0, -20, 225]]]])), red)
    in_order = from_pictures(scale._replace(bgr=False), red)
    np.testing.assert_array_equal(in_order.ravel(), [245, -20, -30])


def test_the_middle_of_a_picture_is_read():
    """Rows and columns 14 to 240 of 256: Caffe's centre crop."""
    rows, columns = np.meshgrid(np.arange(256.0), np.arange(256.0), indexing="ij")
    images = np.stack([rows, columns, 0 * rows], -1)[None]
    read = from_pictures(Pixels(1.0, size=caffenet.SIZE), images)
    assert read.shape == (1, 227, 227, 3)
    np.testing.assert_array_equal(read[0, 0, 0, :2], [14, 14])
    np.testing.assert_array_equal(read[0, -1, -1, :2], [240, 240])
    whole = from_pictures(Pixels(1.0, size=256), images)
    np.testing.assert_array_equal(whole, images)


def test_sides_are_cropped_each_by_itself():
    read = from_pictures(Pixels(1.0, size=3), pictures(side=5))  # 5 x 6
    np.testing.assert_array_equal(read, pictures(side=5)[:, 1:4, 1:4])


def test_a_drawn_picture_is_read_as_it_was_drawn():
    """The generator draws in the scale that CaffeNet reads: between them lies only the crop."""
    drawn = np.random.default_rng(1).uniform(-120, 120, (1, 256, 256, 3)).astype(np.float32)
    read = from_pictures(caffenet.pixels(), to_pictures(caffenet.DRAWN, drawn))
    np.testing.assert_allclose(read, drawn[:, 14:241, 14:241], atol=1e-4)


def test_the_scale_of_the_classifiers():
    grey = np.full((1, 256, 256, 3), 0.5, np.float32)
    read = from_pictures(caffenet.pixels(), grey)
    np.testing.assert_allclose(read[0, 0, 0], 127.5 - np.array(caffenet.MEAN), atol=1e-4)
    other = from_pictures(caffenet.pixels((1.0, 2.0, 3.0)), grey)
    np.testing.assert_allclose(other[0, 0, 0], [126.5, 125.5, 124.5], atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_is_kept(dtype):
    images = pictures().astype(dtype)
    assert from_pictures(caffenet.DRAWN, images).dtype == dtype
    assert to_pictures(caffenet.DRAWN, images).dtype == dtype
