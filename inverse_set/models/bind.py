"""A model and the units asked for, bound into the callables that the algorithms take."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from inverse_set import types
from inverse_set.errors import UserError
from inverse_set.models.base import eight_bits

STARTS = ("nearest", "natural", "noise", "gaussian", "box")
CHOICE = 2  # nearest natural codes among which each start is drawn, so that seeds differ
LAYERS = 8  # whose natural activations are kept

_natural = {}  # what is kept, in the order in which it came; with the model, whose id is in the key


@functools.cache
def _reader(keys, encoded):
    """E and f in one pass over the layers.

    keys: the layer of each unit.  encoded: the layer that is E; None where E is a function.
    """

    def read(layers, encode, positions, images):
        found = layers(images)
        columns = []
        for place, key in enumerate(keys):
            values = found[key]
            values = values.reshape(values.shape[0], *(1,) * (4 - values.ndim), *values.shape[1:])
            index = positions[place]
            columns.append(values[:, index[0], index[1], index[2]])
        features = found[encoded] if encode is None else encode(images)
        nothing = jnp.zeros((features.shape[0], 0), features.dtype)
        activations = jnp.stack(columns, axis=-1) if columns else nothing
        return features.reshape(features.shape[0], -1), activations

    return read


def networks(model, units):
    """`types.Networks` of a model and the units constrained.

    Which unit of a layer is an argument of the compiled functions: another one compiles nothing.
    """
    keys = tuple(model.key(unit) for unit in units)
    positions = [unit.position for unit in units]
    read = _reader(keys, model.encode if isinstance(model.encode, str) else None)
    encode = None if isinstance(model.encode, str) else model.encode
    positions = jnp.asarray(positions, jnp.int32).reshape(len(units), 3)
    read = jax.tree_util.Partial(read, model.layers, encode, positions)
    return types.Networks(model.generate, read, model.finisher)


def _batch(model):
    """Inputs at a time: 8 pictures of 256 pixels a side, at most 50."""
    size = int(np.prod(model.image.shape)) or 1
    return max(1, min(50, 3 * 2**19 // size))


def measure(model, images, units, batch=None, go_on=None):
    """The certificate: activations `[n, P]`, float64, of inputs as saved `[n, ...]`.

    They are recomputed by the model's own `recheck`, where it has one, else by its `layers` at the
    highest precision.
    batch: inputs at a time; None keeps each layer's copy of its input below about 300 MB.
    go_on: called before each batch with the number of inputs measured; where it returns False, the
        rest is NaN.
    """
    batch = batch or _batch(model)
    keys = [model.key(unit) for unit in units]
    found = np.full((len(images), len(units)), np.nan)
    recheck = model.recheck or functools.partial(_recheck, model)
    for start in range(0, len(images), batch):
        if go_on is not None and not go_on(start):
            break
        rows = slice(start, start + batch)
        outputs = recheck(images[rows], set(keys))
        for column, (key, unit) in enumerate(zip(keys, units, strict=True)):
            found[rows, column] = outputs[key][(slice(None), *unit.index)]
    return found


def _recheck(model, images, wanted):
    """{layer: activations} of inputs as saved, by the model's own functions."""
    if model.pictures:
        images = np.asarray(eight_bits(jnp.asarray(images, jnp.float32) / 255))
    found = layers_of(model, images, tuple(sorted(wanted)))
    return {key: value.astype(np.float64) for key, value in found.items()}


@functools.partial(jax.jit, static_argnames="keys")
def _layers_exactly(layers, images, keys):
    with jax.default_matmul_precision("highest"):
        found = layers(images)
        return {key: found[key] for key in keys}


def default_start(model):
    """The kind of starting codes that a model offers."""
    if model.starts is not None:
        return "nearest"
    if model.inverts and not model.untrained:
        return "noise"
    return "gaussian" if _box(model) is None or model.parts is not None else "box"


def _box(model):
    """The bounds of codes where all are finite, else None."""
    lower, upper = model.prior.lower, model.prior.upper
    known = lower is not None and upper is not None
    return (lower, upper) if known and np.isfinite([lower, upper]).all() else None


def check_start(model, kind):
    """UserError if the model has no starting codes of this kind."""
    if kind in ("nearest", "natural") and model.starts is None:
        raise UserError(
            f"{model.name} has no codes of natural pictures to start from",
            "give --start=noise or --start=gaussian, or convert its weights with --images=DIR"
            if model.parts is not None
            else "start elsewhere (gaussian, box), or let `measure` find natural codes",
        )
    if kind == "noise" and not (model.inverts and model.pictures):
        raise UserError(
            f"{model.name} has no encoder that takes noise pictures to codes",
            "start from gaussian codes, or from natural ones",
        )
    if kind == "box" and _box(model) is None:
        raise UserError(
            f"{model.name} has no bounds on its codes to start between",
            "start from gaussian codes, or give its prior a lower and an upper bound",
        )


def starting_codes(model, kind, count, seed, units=(), constraints=()):
    """`[count, D]` codes to start from; count >= 1.

    kind: "nearest", codes of real pictures whose G(c) bring the units nearest to their intervals,
    drawn at random from the nearest twice as many (of many, from fewer: half of those left over are
    out of the question); "natural", codes of real pictures, drawn at
    random; "noise", uniform random pictures through E, as sec. 3.4 has it (nearly one code);
    "gaussian", N(0, 1) before the box;
    "box", uniform between the bounds.
    seed: an integer or a key of `jax.random.key`.
    units: of `parse_unit`, P of them.  constraints: a `Constraint` of each.  Without them "nearest"
    is "natural".
    With fewer codes of real pictures than are wanted all are taken, some more than once.
    """
    key = jax.random.key(seed) if isinstance(seed, int | np.integer) else seed
    check_start(model, kind)
    if kind in ("nearest", "natural"):
        total = len(model.starts)
        rounds = [jax.random.fold_in(key, r) for r in range(-(-count // total))]
        order = np.concatenate([jax.random.permutation(k, total) for k in rounds])
        if kind == "nearest" and len(units) and count < total:
            low, high, width = np.asarray([(c.low, c.high, c.width) for c in constraints]).T
            columns = [natural_layer(model, unit)[:, unit.index[-1]] for unit in units]
            activations = np.stack(columns, 1)
            gaps = np.maximum(low - activations, activations - high) / width
            gaps = np.maximum(gaps, 0).max(1)[order]
            among = min(CHOICE * count, (count + total) // 2)
            order = order[np.sort(np.argsort(gaps, kind="stable")[:among])]
        return model.starts[order[:count]]
    if kind == "gaussian":
        return np.asarray(jax.random.normal(key, (count, model.code_size), jnp.float32))
    if kind == "box":
        lower, upper = (np.asarray(bound, np.float32) for bound in _box(model))
        draw = np.asarray(jax.random.uniform(key, (count, model.code_size), jnp.float32))
        return lower + (upper - lower) * draw
    if kind != "noise":
        raise ValueError(f"expected a start among {', '.join(STARTS)}, got {kind!r}")
    noise = jax.random.uniform(key, (count, *model.image.shape), jnp.float32)
    return encodings(model, noise)


def encodings(model, images):
    """Features `[n, F]` of inputs `[n, ...]` in the range that the generator draws in."""
    size, bare = _batch(model), jax.device_put(networks(model, ()).read)
    images = np.asarray(images, model.image.dtype)
    filled = _filled(images, size)
    parts = [_features(bare, filled[i : i + size]) for i in range(0, len(images), size)]
    return np.concatenate(parts)[: len(images)]


@jax.jit
def _features(read, images):
    return read(images)[0]


def natural_layer(model, unit):
    """Activations `[M, C]` of a unit's layer, at its position, for the natural codes' inputs.

    Kept for the last few layers: a sweep over units draws the inputs once.
    """
    layer, place = model.key(unit), unit.index[:-1]
    key = id(model), layer, place
    if key not in _natural:
        size, functions = _batch(model), jax.device_put((model.generate, model.layers))
        codes = _filled(model.starts, size)
        parts = [
            _drawn_layer(*functions, codes[i : i + size], jnp.asarray(place, jnp.int32), layer)
            for i in range(0, len(codes), size)
        ]
        _natural[key] = model, np.concatenate(parts)[: len(model.starts)]
        if len(_natural) > LAYERS:
            _natural.pop(next(iter(_natural)))
    return _natural[key][1]


@functools.partial(jax.jit, static_argnames="layer")
def _drawn_layer(generate, layers, codes, place, layer):
    values = layers(generate(codes))[layer]
    return values[(slice(None), *(place[axis] for axis in range(values.ndim - 2)))]


def _filled(rows, size):
    """Rows with the first repeated until there are whole batches: nothing compiles twice."""
    return np.concatenate([rows, np.repeat(rows[:1], -len(rows) % size, 0)])


@jax.jit
def _raw(networks, codes):
    return networks.read(networks.generate(codes))[1]


def raw_activations(model, units, codes, batch=None):
    """Activations `[n, P]` of the generator's inputs before they are finished, as by rounding.

    batch: codes at a time, None as many as `measure` takes; the last are filled up, so that any n
    runs one program.
    """
    if not len(codes):
        return np.zeros((0, len(units)), np.float32)
    bare, size = jax.device_put(networks(model, units)), batch or _batch(model)
    filled = _filled(codes, size)
    parts = [_raw(bare, filled[i : i + size]) for i in range(0, len(codes), size)]
    return np.concatenate(parts)[: len(codes)]


def layers_of(model, inputs, keys):
    """{layer: activations `[N, ...]`, NumPy} of inputs `[N, ...]`, for the layers `keys`."""
    size, layers = _batch(model), jax.device_put(model.layers)
    filled = _filled(np.asarray(inputs, model.image.dtype), size)
    parts = [
        jax.device_get(_layers_exactly(layers, filled[i : i + size], keys))
        for i in range(0, len(inputs), size)
    ]
    return {key: np.concatenate([part[key] for part in parts])[: len(inputs)] for key in keys}
