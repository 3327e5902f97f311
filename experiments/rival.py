"""PPGN's chains as samples: what table 1 and its like hold ours against.

PPGN's constants are published for CaffeNet.  On the bundled model they keep their meaning: lengths
are scaled by the ratio of the natural distances of codes, e1 by the inverse of its square.
"""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import real
from inverse_set import constraints, observe
from inverse_set.baselines import ppgn, trace
from inverse_set.models import bind, caffenet, units

CHAINS, STEPS, THIN = 10, 200, 4  # the paper's run of PPGN, and which steps are its samples
MANY, SHORT = 1.5, 12  # chains a sample; they pass through the interval in their first steps
NARROWEST = 0.02  # interval of a probability


class Pictures(NamedTuple):
    """images uint8 `[n, H, W, 3]`, codes `[n, D]`, features `[n, F]`, activations `[n, P]`,
    chain `[n]`, in the order of the steps; steps: gradient steps times codes; seconds.

    PPGN's activations are of the unit and of its class's probability.
    """

    images: np.ndarray
    codes: np.ndarray
    features: np.ndarray
    activations: np.ndarray
    chain: np.ndarray
    steps: float
    seconds: float


def rows_of(pictures, rows):
    """The chosen rows of `Pictures`."""
    return Pictures(*(column[rows] for column in pictures[:5]), *pictures[5:])


def evenly(count, wanted):
    """At most `wanted` numbers below `count`, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int))


def at_most(pictures, count):
    """`Pictures`, evenly thinned to `count` where there are more."""
    return rows_of(pictures, evenly(len(pictures.images), count))


def constants(model):
    """PPGN's, in units of the model's codes."""
    if model.codes.code_square is None or model.name == "caffenet":
        return ppgn.Constants()
    ratio = (model.codes.code_square / model.codes.upper.size) ** 0.5
    ratio /= (caffenet.PAIR_SQUARE / caffenet.CODES) ** 0.5
    default = ppgn.Constants()
    prior, limit = default.prior / ratio**2, default.upper * ratio
    return ppgn.Constants(prior=prior, rate=default.rate * ratio, upper=limit)


class Rival(NamedTuple):
    """networks: whose activations are all logits.  constants: of PPGN.  target: the interval."""

    networks: Any
    constants: ppgn.Constants
    target: constraints.Target
    unit: int
    size: int


def of(model, asked):
    """`Rival` for one class unit.  asked: constraint as one writes it."""
    unit, constraint = units.parse_constraint(model, asked)
    network = model.subject
    read = jax.tree_util.Partial(real.reader(network.plan, network.pixels), network.weights)
    networks = bind.networks(model, [unit])._replace(read=read)
    target = constraints.two_sided([(constraint.low, constraint.high)])
    size = model.encoder.shapes["fc6"][0]
    return Rival(jax.device_put(networks), constants(model), target, unit.index[0], size)


_look = jax.jit(observe.observe_all, static_argnames="micro")


class Chains(NamedTuple):
    """PPGN's: numbers `[N]` of the chains, codes `[T, N, D]`, activations `[T, N]`, seconds."""

    numbers: np.ndarray
    codes: np.ndarray
    activations: np.ndarray
    seconds: float


def run_chains(rival, seed, count, steps):
    """`Chains` 0 to count - 1, some at a time; run again if this compiled, for the seconds."""
    compiled = ppgn.run._cache_size()
    found = _run_chains(rival, seed, count, steps)
    again = ppgn.run._cache_size() > compiled
    return _run_chains(rival, seed, count, steps) if again else found


def _run_chains(rival, seed, count, steps):
    began = time.perf_counter()
    plan, key, runs = ppgn.Plan(steps=steps), jax.random.key(seed), []
    for numbers in np.split(np.arange(count), range(CHAINS, count, CHAINS)):
        run = ppgn.run(
            key, jnp.asarray(numbers), rival.size, rival.networks, rival.unit, rival.constants, plan
        )
        runs.append((np.asarray(run.codes), np.asarray(run.activations)))
    codes, activations = (np.concatenate(column, 1) for column in zip(*runs, strict=True))
    return Chains(np.arange(count), codes, activations, time.perf_counter() - began)


def chain_pictures(rival, chains, keep):
    """`Pictures` of chains; keep: activations `[T, N]` -> mask of the steps that are samples."""
    mask = np.asarray(keep(chains.activations)).T  # chain by chain, steps in order
    codes = chains.codes.swapaxes(0, 1)[mask]
    chain = np.repeat(chains.numbers, mask.sum(1))
    images, features, activations = [], [], []
    for start in range(0, max(len(codes), 1), 50):
        batch = codes[start : start + 50]
        filled = np.pad(batch, ((0, 50 - len(batch)), (0, 0)))
        seen = _look(rival.networks, filled, micro=10)
        images.append(np.round(np.asarray(seen.images) * 255).astype(np.uint8)[: len(batch)])
        features.append(np.asarray(seen.features)[: len(batch)])
        logits = seen.activations[: len(batch)]
        both = logits[:, rival.unit], jax.nn.softmax(logits)[:, rival.unit]
        activations.append(np.stack(both, 1))
    columns = (np.concatenate(column) for column in (images, features, activations))
    images, features, activations = columns
    steps = float(chains.activations.size)
    return Pictures(images, codes, features, activations, chain, steps, chains.seconds)


def thinned(activations):
    """Every fourth step."""
    rows = np.arange(len(activations)) % THIN == THIN - 1
    return np.broadcast_to(rows[:, None], activations.shape)


def within(rival):
    """activations `[T, N]` -> mask of those in the interval."""

    def keep(activations):
        return trace.matched(activations, rival.target)

    return keep


def many(rival, seed, count):
    """`Pictures` in the interval, of more short chains than the `count` that is wanted."""
    run = run_chains(rival, seed, round(MANY * count), SHORT)
    return chain_pictures(rival, run, within(rival))


def likely(asked, pictures):
    """(asked, an interval of its class's probability), where PPGN's pictures in `asked` lie.

    Samples that fill the second one are as probable on average as those pictures, and its upper
    end is their 0.9 quantile.  Without pictures it is [0, 1].
    """
    low, high = 0.0, 1.0
    if len(pictures.images):
        shares = pictures.activations[:, 1]
        high = float(np.quantile(shares, 0.9))
        low = max(min(2 * shares.mean() - high, high - NARROWEST), 0.0)
    unit = asked.split("/", 1)[1].rsplit(":", 2)[0]
    return asked, f"prob/{unit}:{low:.3f}:{high:.3f}"
