"""Random changes of training pictures, on the device they lie on.  A key is used up by each."""

import jax
import jax.numpy as jnp

SMALLEST = {32: 0.6, 64: 0.5}  # side of a crop; at 32 pixels less would leave too little to see
ERASED = {32: 0.0, 64: 0.25}  # share of the pictures with a grey box
ASPECT = 1.25  # of a crop, at most, either way


def augment(key, images, resolution):
    """uint8 `[N, S, S, 3]` -> `[N, resolution, resolution, 3]` in [0, 1].

    Crops, mirror images half the time, contrast, colour and its strength, at 64 a grey box.
    """
    crop_key, flip_key, colour_key, erase_key = jax.random.split(key, 4)
    images = crop(crop_key, images / 255.0, resolution)
    flip = jax.random.bernoulli(flip_key, 0.5, (len(images), 1, 1, 1))
    images = jitter(colour_key, jnp.where(flip, images[:, :, ::-1], images))
    if not ERASED[resolution]:
        return images
    box_key, whether_key = jax.random.split(erase_key)
    whether = jax.random.bernoulli(whether_key, ERASED[resolution], (len(images), 1, 1, 1))
    return jnp.where(whether & boxes(box_key, len(images), resolution, 0.4), 0.5, images)


def crop(key, images, resolution):
    """A part of each of the pictures `[N, S, S, 3]`, at the resolution."""
    n, source = images.shape[:2]
    scale_key, aspect_key, place_key = jax.random.split(key, 3)
    side = jax.random.uniform(scale_key, (n, 1), minval=SMALLEST[resolution], maxval=1.0)
    aspect = ASPECT ** jax.random.uniform(aspect_key, (n, 1), minval=-0.5, maxval=0.5)
    sides = jnp.minimum(side * jnp.concatenate([aspect, 1 / aspect], axis=1), 1.0) * source
    start = jax.random.uniform(place_key, (n, 2)) * (source - sides)
    scale = resolution / sides

    def one(image, scale, start):
        return jax.image.scale_and_translate(
            image, (resolution, resolution, 3), (0, 1), scale, -start * scale, "linear"
        )

    return jax.vmap(one)(images, scale, start)


def jitter(key, images):
    """Other contrast, brightness, white and strength of colour; clipped to [0, 1]."""
    n = len(images)
    gain_key, shift_key, strength_key = jax.random.split(key, 3)
    gain = jax.random.uniform(gain_key, (n, 1, 1, 1), minval=0.75, maxval=1.25)
    shift = jax.random.uniform(shift_key, (n, 1, 1, 3), minval=-0.08, maxval=0.08)
    strength = jax.random.uniform(strength_key, (n, 1, 1, 1), minval=0.7, maxval=1.3)
    grey = images.mean(-1, keepdims=True)
    images = grey + strength * (images - grey)
    return jnp.clip((images - 0.5) * gain + 0.5 + shift, 0.0, 1.0)


def boxes(key, n, side, largest):
    """`[n, side, side, 1]` True inside a box a picture, up to sqrt(`largest`) of a side long."""
    area_key, place_key = jax.random.split(key)
    length = jnp.sqrt(largest * jax.random.uniform(area_key, (n, 1, 1))) * side
    centre = jax.random.uniform(place_key, (2, n, 1)) * side
    pixel = jnp.arange(side) + 0.5
    rows, columns = (abs(pixel - place) < length[:, 0] / 2 for place in centre)
    return (rows[:, :, None] & columns[:, None, :])[..., None]


def mix(key, images, targets):
    """Each picture and the one before it: half the time blended, half the time in a box (cutmix).

    targets: `[N, C]`, mixed by the share of the pixels.  A blend keeps at least half of its own.
    """
    share_key, box_key, which_key = jax.random.split(key, 3)
    n, side = images.shape[:2]
    share = 1 - 0.5 * jax.random.uniform(share_key, (n, 1, 1, 1)) ** 3
    other = boxes(box_key, n, side, 1.0)
    boxed = jax.random.bernoulli(which_key, 0.5, (n, 1, 1, 1))
    own = jnp.where(boxed, 1.0 - other, jnp.broadcast_to(share, other.shape))
    shares = own.mean((1, 2))
    images = own * images + (1 - own) * jnp.roll(images, 1, axis=0)
    return images, shares * targets + (1 - shares) * jnp.roll(targets, 1, axis=0)
