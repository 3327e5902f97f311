"""Activation maximisation in pixels under the classical hand-made regularisers.

    x <- clip(x + lr_t g / mean |g|),    g = grad [f(jittered x) - R(x)],    blurred now and then
    R(x) = a mean |x - x0|^alpha + b mean (|d_row x|^2 + |d_col x|^2)^(beta / 2)

alpha-norm: Simonyan et al. 2014.  Gaussian blur: Yosinski et al. 2015.  Total variation: Mahendran
and Vedaldi 2015.  Jitter: Mordvintsev et al. 2015.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from inverse_set import observe
from inverse_set.baselines import trace


class Constants(NamedTuple):
    """Numbers, all arguments of the compiled functions; pixels in [lower, upper].

    rate, rate_end: the mean change of a pixel's value in the first step, and where its line ends;
        a rate that falls to nothing leaves the last word to the blur.
    norm, variation: a and b, in the neuron's units.  centre: x0, the grey that costs nothing.
    sigma: of the blur, in pixels, > 0.
    """

    rate: Any = 0.02
    rate_end: Any = 0.02
    norm: Any = 1.0
    variation: Any = 100.0
    centre: Any = 0.5
    sigma: Any = 0.5
    lower: Any = 0.0
    upper: Any = 1.0


class Plan(NamedTuple):
    """What kind of run it is.

    steps: of each chain.  every: steps between two recorded ones.  alpha, beta: exponents >= 1.
    jitter: pixels an image is rolled by at most, in either direction, before its gradient is taken.
    blur_every: steps between two blurs, 0 for none.  radius: pixels the blur reaches.
    """

    steps: int = 200
    every: int = 10
    alpha: float = 6.0
    beta: float = 2.0
    jitter: int = 4
    blur_every: int = 4
    radius: int = 2


class PixelState(NamedTuple):
    """What the next step needs.

    images: `[K, H, W, C]`, not rounded.  keys: `[K]`, one a chain.  step: int32, steps taken.
    """

    images: jnp.ndarray
    keys: jnp.ndarray
    step: jnp.ndarray


def alpha_norm(images, centre, alpha):
    """mean |x - x0|^alpha of images `[K, H, W, C]`, `[K]`."""
    return (jnp.abs(images - centre) ** alpha).mean((1, 2, 3))


def total_variation(images, beta):
    """mean (|d_row x|^2 + |d_col x|^2)^(beta / 2), `[K]`; the last row and column repeat."""
    down = jnp.diff(images, axis=1, append=images[:, -1:])
    right = jnp.diff(images, axis=2, append=images[:, :, -1:])
    square = down**2 + right**2
    flat = square == 0  # where a root has no gradient, zero is one
    return jnp.where(flat, 0, jnp.where(flat, 1, square) ** (beta / 2)).mean((1, 2, 3))


def blur(images, sigma, radius):
    """Gaussian blur of images `[K, H, W, C]`; beyond the border the border's pixels repeat."""
    offsets = jnp.arange(-radius, radius + 1)
    weights = jnp.exp(-0.5 * (offsets / sigma) ** 2)
    weights = (weights / weights.sum()).astype(images.dtype)
    for axis in (1, 2):
        size = images.shape[axis]
        margin = [(radius, radius) if a == axis else (0, 0) for a in range(4)]
        padded = jnp.pad(images, margin, mode="edge")
        images = sum(
            weights[i] * jax.lax.slice_in_dim(padded, i, i + size, axis=axis)
            for i in range(2 * radius + 1)
        )
    return images


def cost(images, constants, plan):
    """R of images `[K, H, W, C]`, `[K]`."""
    norm = alpha_norm(images, constants.centre, plan.alpha)
    return constants.norm * norm + constants.variation * total_variation(images, plan.beta)


def init(key, chains, images):
    """The state of the chains numbered `[K]`, at images `[K, H, W, C]`."""
    return PixelState(images, trace.chain_keys(key, chains), jnp.int32(0))


def step(state, networks, unit, constants, plan):
    """One step of every chain; returns the state."""
    shifts = _shifts(trace.fold(state.keys, state.step), plan.jitter)
    jittered = _roll(state.images, shifts)
    slope, _ = trace.climb(_of_images(networks), jittered, lambda a: trace.pick(a, unit))
    slope = _roll(slope, -shifts)
    slope = slope - jax.grad(lambda x: cost(x, constants, plan).sum())(state.images)
    share = state.step.astype(state.images.dtype) / plan.steps
    rate = constants.rate + share * (constants.rate_end - constants.rate)
    images = state.images + rate * trace.normalised(slope)
    images = jnp.clip(images, constants.lower, constants.upper)
    done = state.step + 1
    if plan.blur_every:
        due = done % plan.blur_every == 0
        images = jnp.where(due, blur(images, constants.sigma, plan.radius), images)
    return PixelState(images, state.keys, done)


def start(key, chains, shape, centre=0.5, deviation=0.1):
    """Grey noise `[K, H, W, C]` of the chains numbered `[K]`, shape `(H, W, C)`."""
    return centre + deviation * trace.gaussian(trace.chain_keys(key, chains), shape)


@functools.partial(jax.jit, static_argnames="plan")
def run(key, chains, images, networks, unit, constants=None, plan=None):
    """Every `plan.every`th step from images `[K, H, W, C]`; pure in the key, which it uses up.

    Returns a `Trace` of `steps / every` rows whose codes are the images as they will be saved.
    networks: `Networks`, of which `generate` is not used.  unit: int or `[K]`, the column climbed.
    """
    constants = Constants() if constants is None else constants
    plan = Plan() if plan is None else plan
    if plan.steps % plan.every:
        raise ValueError(f"expected steps a multiple of every {plan.every}, got {plan.steps}")

    def one_step(_, state):
        return step(state, networks, unit, constants, plan)

    def one_row(state, _):
        state = jax.lax.fori_loop(0, plan.every, one_step, state)
        seen = observe.observe(_of_images(networks), state.images)
        return state, trace.Trace(seen.images, trace.pick(seen.activations, unit))

    rows = plan.steps // plan.every
    return jax.lax.scan(one_row, init(key, chains, images), length=rows)[1]


def _itself(images):
    return images


def _of_images(networks):
    return networks._replace(generate=jax.tree_util.Partial(_itself))


def _shifts(keys, most):
    """Pixels down and right `[K, 2]`, each from -most to most."""
    return jax.vmap(lambda key: jax.random.randint(key, (2,), -most, most + 1))(keys)


def _roll(images, shifts):
    return jax.vmap(lambda image, shift: jnp.roll(image, shift, (0, 1)))(images, shifts)
