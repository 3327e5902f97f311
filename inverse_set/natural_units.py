"""The configuration in natural units: lengths and weights as shares of what natural codes have.

The diversity is measured in squared distances of natural encodings, steps and rates in distances
and deviations of natural codes, so that one configuration serves every model, unit and K.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from inverse_set import constraints, diversity, observe, refine, sampler, seeds

MIXING = 0.4  # of a step of the "refine" walk, the mean share of the way to another code
REACH = 0.3  # the longest correction of the "refine" walk, as a share of the natural distance
WAIT = 2  # updates of lambda and mu without another seed inside, before the rest is given up
ADAM = optax.adam(1.0)  # its rate is part of the problem's code scale: another compiles nothing

observe_jitted = jax.jit(observe.observe_exactly, static_argnames="micro")


def plan(networks, asked, start, settings, natural):
    """(`Problem`, `Descent`, `Walk`, beta) of a run; arrays on the device, beta a float.

    networks: `Networks`.  asked: P `Constraint`s.  start: `[K, D]`.  settings: resolved `Settings`.
    natural: `Natural`; what it does not say of distances is measured on the start.
    """
    paper = settings.rule == "paper"
    intervals = [(constraint.low, constraint.high) for constraint in asked]
    if paper:
        target = constraints.paper(intervals)
    else:
        scales = [constraint.scale for constraint in asked]
        target = constraints.two_sided(intervals, settings.margin, settings.guard, scales)
    target = jax.tree.map(lambda bound: bound.astype(start.dtype), target)
    # Codes that all start alike have no spread of their own to measure by.
    code_square = natural.code_square or mean_square_distance(start) or 1.0
    count, size = start.shape
    batch, weight = micro_batch(settings, count), 1.0
    if not paper:
        square = code_square if settings.distance == "code" else natural.feature_square
        if square is None or settings.distance == "image":
            observation = observe_jitted(networks, start, batch)
            points = diversity.points_of(settings.distance, start, observation)
            square = mean_square_distance(points) or 1.0
        weight = settings.diversity / square
    box = [
        None if bound is None else jnp.asarray(bound, start.dtype)[None]
        for bound in (natural.lower, natural.upper)
    ]
    deviation = (code_square / (2 * size)) ** 0.5
    code_scale = 1.0 if settings.optimiser else settings.rate * deviation
    numbers = jnp.asarray(weight, start.dtype), jnp.asarray(code_scale, start.dtype)
    problem = seeds.Problem(networks, target, *numbers, *box)
    if settings.walk == "refine" and natural.codes is not None:
        problem = problem._replace(natural=jnp.asarray(natural.codes, start.dtype))
    patient = paper or settings.method == "joint"
    descent = seeds.Descent(
        optimiser=settings.optimiser or ADAM,
        distance=settings.distance,
        mean_pairs=not paper,
        stop=settings.stop,
        micro_batch=batch,
        max_steps=int(settings.seed_steps),
        inner_steps=int(settings.inner_steps),
        penalty=float(settings.penalty),
        growth=float(settings.growth),
        penalty_cap=float(settings.penalty_cap),
        plateau_steps=int(settings.plateau),
        give_up_after=seeds.NEVER if patient else WAIT * int(settings.inner_steps),
    )
    refinement = None
    if settings.walk == "refine":
        refinement = refine.Refinement(
            encodings=settings.encodings,
            noise=float(settings.noise / settings.step),
            reach=float(REACH / settings.step),
            mixing=MIXING,
        )
    walk = sampler.Walk(
        distance=settings.distance,
        memory=settings.memory,
        backtrack=not paper,
        mean_pairs=not paper,
        micro_batch=batch,
        refinement=refinement,
    )
    beta = settings.step if paper else settings.step * code_square**0.5
    return (*jax.device_put((problem, descent, walk)), float(beta))


def micro_batch(settings, count):
    """The micro-batch of `count` codes, None where all fit into one."""
    one = settings.micro is None or (settings.micro >= count and settings.method == "incremental")
    return None if one else min(settings.micro, count)


def mean_square_distance(points):
    """Mean over i != j of |p_i - p_j|^2; points that are NaN or infinite are left out."""
    known = jnp.isfinite(points).all(-1)
    count = int(known.sum())
    return float(diversity.pair_sum(points, known)) / max(count * (count - 1), 1)


def check(networks, asked, natural, start):
    """ValueError for starting or natural codes, or networks, of shapes that do not fit.

    networks: `Networks`.  asked: P `Constraint`s.  natural: `Natural`.  start: `[K, D]`.
    """
    if start.ndim != 2 or start.shape[0] < 1 or not jnp.issubdtype(start.dtype, jnp.floating):
        raise ValueError(f"expected floating codes [K, D], got {start.dtype}{start.shape}")
    seen = jax.eval_shape(observe.observe, networks, start)
    want = (start.shape[0], len(asked))
    if seen.activations.shape != want or seen.features.ndim != 2:
        raise ValueError(
            f"expected activations {want} and features [K, F], "
            f"got {seen.activations.shape} and {seen.features.shape}"
        )
    if natural.codes is None:
        return
    shape = np.shape(natural.codes)
    if len(shape) != 2 or shape[0] < 2 or shape[1] != start.shape[1]:
        raise ValueError(f"expected natural codes [M >= 2, {start.shape[1]}], got {shape}")
