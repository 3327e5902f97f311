"""A model and the units asked for, bound into the callables that the algorithms take."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from inverse_set import types
from inverse_set.errors import UserError
from inverse_set.models import certificate, pixels
from inverse_set.models.classifier import Classifier, names
from inverse_set.models.generator import Generator
from inverse_set.models.zoo import ENCODER

STARTS = ("nearest", "natural", "noise", "gaussian")
CHOICE = 2  # nearest natural codes among which each start is drawn, so that seeds differ
LAYERS = 8  # whose natural activations are kept

_natural = {}  # what is kept, in the order in which it came; with the model, whose id is in the key


@functools.cache
def _generate(plan, drawn):
    def generate(weights, codes):
        return pixels.to_pictures(drawn, Generator(plan).apply({"params": weights}, codes))

    return generate


@functools.cache
def _read_units(readers, layers):
    """E and f in one forward pass a network.

    readers: (plan, pixels, deepest name read) of each network, the encoder's first.
    layers: (number of the network, layer) of each unit.
    """

    def read(weights, positions, images):
        passes = [
            Classifier(plan).apply({"params": own}, pixels.from_pictures(scale, images), until=last)
            for (plan, scale, last), own in zip(readers, weights, strict=True)
        ]
        columns = []
        for place, (number, layer) in enumerate(layers):
            values = passes[number][layer]
            values = values.reshape(values.shape[0], *(1,) * (4 - values.ndim), *values.shape[1:])
            row, column, channel = positions[place]
            columns.append(values[:, row, column, channel])
        return passes[0][ENCODER], jnp.stack(columns, axis=-1)

    return read


def quantise(images):
    """Images in [0, 1] as an 8-bit file keeps them."""
    levels = jnp.round(jnp.clip(images, 0.0, 1.0) * 255.0)
    return levels * np.float32(257 / 65536) + levels * np.float32(1 / 255 - 257 / 65536)


def network_of(model, unit):
    """The `Network` that a unit belongs to."""
    if unit.network is None:
        return model.subject
    return next(network for network in model.networks if network.name == unit.network)


def _deepest(network, layers):
    return max(layers, key=names(network.plan).index)


def networks(model, units):
    """`types.Networks` of a model and the units constrained.

    Which unit of a layer is an argument of the compiled functions: another one compiles nothing.
    """
    owners = [network_of(model, unit) for unit in units]
    used = [model.encoder]
    used += [n for n in model.networks[1:] if any(n is owner for owner in owners)]
    readers = []
    for network in used:
        layers = [u.layer for u, owner in zip(units, owners, strict=True) if owner is network]
        layers += [ENCODER] if network is model.encoder else []
        readers.append((network.plan, network.pixels, _deepest(network, layers)))
    numbers = {id(network): number for number, network in enumerate(used)}
    layers = tuple((numbers[id(o)], u.layer) for u, o in zip(units, owners, strict=True))
    positions = jnp.asarray([unit.position for unit in units], jnp.int32)
    read = _read_units(tuple(readers), layers)
    partial = jax.tree_util.Partial
    generator = model.generator
    return types.Networks(
        partial(_generate(generator.plan, generator.pixels), generator.weights),
        partial(read, tuple(network.weights for network in used), positions),
        partial(quantise),
    )


def _batch(model):
    """Pictures at a time: 8 of 256 pixels a side, at most 50."""
    return max(1, min(50, 2**19 // model.resolution**2))


def measure(model, images, units, batch=None, go_on=None):
    """The certificate: activations `[n, P]` of 8-bit images `[n, H, W, 3]`, NumPy float64.

    batch: images at a time; None keeps each layer's copy of its input below about 300 MB.
    go_on: called before each batch with the number of images measured; where it returns False, the
        rest is NaN.
    """
    batch = batch or _batch(model)
    owners = [network_of(model, unit) for unit in units]
    found = np.full((len(images), len(units)), np.nan)
    for start in range(0, len(images), batch):
        if go_on is not None and not go_on(start):
            break
        rows = slice(start, start + batch)
        for network in model.networks:
            mine = [i for i, owner in enumerate(owners) if owner is network]
            if not mine:
                continue
            layers = {units[i].layer for i in mine}
            x = pixels.from_pictures(network.pixels, images[rows] / 255.0)
            outputs = certificate.forward(network.plan, network.weights, x, layers)
            for i in mine:
                found[rows, i] = outputs[units[i].layer][(slice(None), *units[i].index)]
    return found


def default_start(model):
    """The kind of starting codes that a model offers."""
    if model.starts is not None:
        return "nearest"
    return "gaussian" if model.untrained else "noise"


def check_start(model, kind):
    """UserError if the model has no starting codes of this kind."""
    if kind in ("nearest", "natural") and model.starts is None:
        raise UserError(
            f"{model.name} has no codes of natural pictures to start from",
            "give --start=noise or --start=gaussian, or convert its weights with --images=DIR",
        )


def starting_codes(model, kind, count, seed, units=(), intervals=()):
    """`[count, D]` codes to start from; count >= 1.

    kind: "nearest", codes of real pictures whose G(c) bring the units nearest to their intervals,
    drawn at random from the nearest twice as many (of many, from fewer: half of those left over are
    out of the question); "natural", codes of real pictures, drawn at
    random; "noise", uniform random pictures through E, as sec. 3.4 has it (nearly one code);
    "gaussian", N(0, 1) before the box.
    units: of `parse_unit`, P of them.  intervals: `[P, 2]`.  Without them "nearest" is "natural".
    With fewer codes of real pictures than are wanted all are taken, some more than once.
    """
    key = jax.random.key(seed)
    if kind in ("nearest", "natural"):
        check_start(model, kind)
        total = len(model.starts)
        rounds = [jax.random.fold_in(key, r) for r in range(-(-count // total))]
        order = np.concatenate([jax.random.permutation(k, total) for k in rounds])
        if kind == "nearest" and len(units) and count < total:
            low, high = np.asarray(intervals, float).T
            columns = [natural_layer(model, unit)[:, unit.index[-1]] for unit in units]
            activations = np.stack(columns, 1)
            gaps = np.maximum(low - activations, activations - high) / (high - low)
            gaps = np.maximum(gaps, 0).max(1)[order]
            among = min(CHOICE * count, (count + total) // 2)
            order = order[np.sort(np.argsort(gaps, kind="stable")[:among])]
        return model.starts[order[:count]]
    if kind == "gaussian":
        size = model.encoder.shapes["fc6"]
        return np.asarray(jax.random.normal(key, (count, *size), jnp.float32))
    if kind != "noise":
        raise ValueError(f"expected a start among {', '.join(STARTS)}, got {kind!r}")
    sides = model.resolution, model.resolution
    noise = jax.random.uniform(key, (count, *sides, 3), jnp.float32)
    encoder, size = model.encoder, _batch(model)
    run, layers = encode(encoder.plan, encoder.pixels), jax.device_put(encoder.weights)
    return np.concatenate([run(layers, noise[i : i + size]) for i in range(0, count, size)])


def natural_layer(model, unit):
    """Activations `[M, C]` of a unit's layer, at its position, for the natural codes' pictures.

    Kept for the last few layers: a sweep over units draws the pictures once.
    """
    network = network_of(model, unit)
    key = id(model), network.name, unit.layer, unit.index[:-1]
    if key not in _natural:
        generator, size = model.generator, _batch(model)
        run = _drawn_layer(generator.plan, generator.pixels, network.plan, network.pixels, *key[2:])
        weights = jax.device_put((generator.weights, network.weights))
        codes = _filled(model.starts, size)
        parts = [run(*weights, codes[i : i + size]) for i in range(0, len(codes), size)]
        _natural[key] = model, np.concatenate(parts)[: len(model.starts)]
        if len(_natural) > LAYERS:
            _natural.pop(next(iter(_natural)))
    return _natural[key][1]


@functools.cache
def _drawn_layer(plan, drawn, read, scale, layer, place):
    generate = _generate(plan, drawn)

    @jax.jit
    def run(generator, weights, codes):
        x = pixels.from_pictures(scale, generate(generator, codes))
        values = Classifier(read).apply({"params": weights}, x, until=layer)[layer]
        return values[(slice(None), *place)]

    return run


def _filled(codes, size):
    """Codes with the first repeated until there are whole batches: nothing compiles twice."""
    return np.concatenate([codes, np.repeat(codes[:1], -len(codes) % size, 0)])


@functools.cache
def encode(plan, scale):
    """E as a compiled function (weights, pictures `[N, H, W, 3]` in [0, 1]) -> codes `[N, D]`."""

    @jax.jit
    def run(weights, images):
        images = pixels.from_pictures(scale, images)
        return Classifier(plan).apply({"params": weights}, images, until=ENCODER)[ENCODER]

    return run


@jax.jit
def _raw(networks, codes):
    return networks.read(networks.generate(codes))[1]


def raw_activations(model, units, codes, batch=None):
    """Activations `[n, P]` of the generator's pictures before clipping and rounding.

    batch: codes at a time, None as many as `measure` takes; the last are filled up, so that any n
    runs one program.
    """
    if not len(codes):
        return np.zeros((0, len(units)), np.float32)
    bare, size = jax.device_put(networks(model, units)), batch or _batch(model)
    filled = _filled(codes, size)
    parts = [_raw(bare, filled[i : i + size]) for i in range(0, len(codes), size)]
    return np.concatenate(parts)[: len(codes)]
