"""The models by name: their networks, weights, labels and natural activations."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from inverse_set.convert import home
from inverse_set.errors import WEIGHTS, UserError
from inverse_set.models import caffenet, mini, weights
from inverse_set.models.classifier import PROB, Classifier
from inverse_set.models.generator import Generator
from inverse_set.models.parts import Drawer, Network, Parts, assemble
from inverse_set.settings import Natural

FOLDER = pathlib.Path(__file__).parent / "weights"
NAMES = {
    "mini": "the bundled pair: needs nothing",
    "caffenet": "the paper's pair: CaffeNet and the generator that inverts its fc6",
}
SUBJECTS = {
    "scenes": "kinds of scenes in place of objects, a --subject for mini",
    "alexnet": "BVLC AlexNet, a --subject for caffenet",
    "places205": "Places205-CNN, a --subject for caffenet (the paper's fig. 6)",
}
PAIRS = {"scenes": "mini", "alexnet": "caffenet", "places205": "caffenet"}  # whose E and G


def files(name):
    """The weight files of a model or of a subject."""
    if name == "mini":
        return (FOLDER / "mini_classifier.safetensors", FOLDER / "mini_generator.safetensors")
    if name == "caffenet":
        return (home.weights("caffenet"), home.weights("fc6_generator"))
    if name == "scenes":
        return (FOLDER / "mini_scenes.safetensors",)
    return (home.weights(name),)


@functools.cache
def load(name="mini", subject=None, untrained=None):
    """The model called `name`; UserError for an unknown one or for missing or broken weights.

    subject: the name of another classifier, whose units constraints mean.
    untrained: "random:SEED" for random weights in place of the files.
    """
    _check_names(name, subject)
    check_device()
    seed = None if untrained is None else _seed(untrained)
    parts = _mini(subject, seed) if name == "mini" else _caffenet(subject, seed)
    return assemble(parts._replace(untrained=untrained))


def check_device():
    """UserError if JAX has been told to use devices that are not here."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError):
        asked = jax.config.jax_platforms
        if not asked:
            raise
        raise UserError(
            f"JAX has no device of JAX_PLATFORMS={asked}", "unset it or install jax[cuda]"
        ) from None


def _check_names(name, subject):
    if name in SUBJECTS:
        raise UserError(
            f"{name} has no generator of its own",
            f"use it with another's: --model={PAIRS[name]} --subject={name}",
        )
    if name not in NAMES:
        raise UserError(
            f"unknown model {name!r}",
            f"choose among: {', '.join(NAMES)} (`inverse-set models` describes them)",
        )
    if subject not in (None, name) and PAIRS.get(subject) != name:
        known = (f"{', '.join(_subjects(pair))} with --model={pair}" for pair in NAMES)
        raise UserError(f"{name} takes no subject {subject!r}", f"subjects are {'; '.join(known)}")


def _subjects(pair):
    return [subject for subject in SUBJECTS if PAIRS[subject] == pair]


def _seed(text):
    kind, _, number = text.partition(":")
    if kind != "random" or not number.isdecimal() or len(number) > 9:
        raise UserError(
            f"{text!r} names no weights", "write --weights=random:0 for untrained ones, or nothing"
        )
    return int(number)


def _fitting(build):
    """Turns what a file that does not fit provokes into an error that says so."""

    @functools.wraps(build)
    def guarded(*arguments):
        try:
            return build(*arguments)
        except (KeyError, ValueError, TypeError, ArithmeticError, AttributeError) as error:
            name = arguments[0]
            raise UserError(
                f"the weight files of {name} do not fit together: {' '.join(str(error).split())}",
                _remedies(name)[1],
                WEIGHTS,
            ) from error

    return guarded


def _remedies(name):
    """What to do about a weight file that is missing, and about one that is broken."""
    if name in ("mini", "scenes"):
        return (
            "reinstall the package, or train the model with experiments/train_mini.py",
            "reinstall the package: the file is damaged",
        )
    ways = f"inverse-set fetch {name}", f"inverse-set convert FILE --network={name}"
    return " or ".join(ways), " or ".join(f"{way} --overwrite" for way in ways)


def _mini(subject, seed):
    """The bundled pair, with another classifier as its subject if one is named."""
    parts = [weights.read(path, *_remedies("mini")) for path in files("mini")]
    pair = _assemble_mini("mini", *parts, seed)
    if subject in (None, "mini"):
        return pair
    (path,) = files(subject)
    part = weights.read(path, *_remedies(subject))
    # Another seed, or scenes would be drawn with the numbers of the encoder.
    other, part = _bundled(subject, part, None if seed is None else seed + 1)
    hashes = pair.hashes | {part.name: part.digest}
    return pair._replace(networks=(*pair.networks, other), hashes=hashes)


@_fitting
def _bundled(name, part, seed):
    """(`Network`, its weight file or the random one in its place) of a classifier that ships."""
    record, side = part.record, mini.SIDE
    labels = tuple(record["labels"])
    if record["resolution"] != side:
        raise ValueError(f"expected a resolution of {side}, file has {record['resolution']}")
    # Beyond, JAX 0.9 counts a layer's entries in 64 bits, and warns that it may not.
    if record["width"] > mini.WIDEST:
        raise ValueError(f"expected a width of at most {mini.WIDEST}, file has {record['width']}")
    plan = mini.classifier_plan(len(labels), record["width"])
    if seed is not None:
        part = _drawn(name, weights.shapes(Classifier(plan), (side, side, 3)), seed)
    quantiles = record["quantiles"]
    return network(name, plan, part, mini.PIXELS, labels, side, quantiles), part


@_fitting
def _assemble_mini(name, classifier, generator, seed=None):
    record = classifier.record
    encoder, classifier = _bundled(name, classifier, seed)
    plan = mini.generator_plan(record["width"], generator.record.get("residual", False))
    if seed is not None:
        expected = weights.shapes(Generator(plan), encoder.shapes["fc6"])
        generator = _drawn("mini's generator", expected, seed, plan.deconvs)
    pair = _parts(name, mini.SIDE, (encoder,), [classifier], generator, plan, mini.DRAWN)
    if seed is None and pair.starts is None:
        raise ValueError("codes/starts is expected and not there")
    return pair


def _caffenet(subject, seed):
    """The full-size pair, with another classifier as its subject if one is named."""
    names = ["caffenet"] if subject in (None, "caffenet") else ["caffenet", subject]
    if seed is None:
        needed = [*names, "fc6_generator"]
        absent = [name for name in needed if not home.weights(name).exists()]
        if absent:
            raise UserError(
                f"weights are missing: {', '.join(absent)}",
                " && ".join(f"inverse-set fetch {name}" for name in absent)
                + f" (or inverse-set convert FILE --network={absent[0]} for a file you have)",
                WEIGHTS,
            )
        *parts, generator = (weights.read(home.weights(n), *_remedies(n)) for n in needed)
    else:
        parts = [_random_classifier(name, seed + i) for i, name in enumerate(names)]
        expected = weights.shapes(Generator(caffenet.FC6_GENERATOR), (caffenet.CODES,))
        deconvs, scales = caffenet.FC6_GENERATOR.deconvs, {"deconv0": caffenet.CONTRAST}
        generator = _drawn("fc6_generator", expected, seed, deconvs, scales)
    return _assemble_caffenet("caffenet", names, parts, generator, seed)


def _random_classifier(name, seed):
    size = (caffenet.SIZE, caffenet.SIZE, 3)
    expected = weights.shapes(Classifier(caffenet.CLASSIFIERS[name]), size)
    return _drawn(name, expected, seed, scales={"conv1": 1 / caffenet.CONTRAST})


@_fitting
def _assemble_caffenet(name, names, parts, generator, seed):
    _check_network("fc6_generator", generator)
    networks = tuple(map(full_size, names, parts))
    plan, side = caffenet.FC6_GENERATOR, caffenet.RESOLUTION
    pair = _parts(name, side, networks, parts, generator, plan, caffenet.DRAWN)
    if pair.starts is None and seed is None:
        upper = np.full(caffenet.CODES, caffenet.CODE_LIMIT, np.float32)
        square = caffenet.PAIR_SQUARE
        return pair._replace(codes=Natural(pair.codes.lower, upper, square, square))
    return pair


def full_size(name, part):
    """`Network` of one of Caffe's classifiers; ValueError if its weight file does not fit."""
    check_device()
    _check_network(name, part)
    mean = tuple(float(value) for value in part.record.get("mean", caffenet.MEAN))
    if len(mean) != 3 or not np.isfinite(mean).all():
        raise ValueError(f"expected a mean of 3 numbers, file has {mean}")
    labels, quantiles = caffenet.labels(name), part.record.get("quantiles", ())
    plan, pixels = caffenet.CLASSIFIERS[name], caffenet.pixels(mean)
    return network(name, plan, part, pixels, labels, caffenet.SIZE, quantiles)


def _check_network(name, part):
    """ValueError if the file says that it holds another network, whose shapes may be the same."""
    said = part.record.get("network", name)
    if said != name:
        raise ValueError(f"{part.name} holds {said}, not {name}")


def network(name, plan, part, pixels, labels, side, quantiles):
    """`Network` from a weight file's part; ValueError for what does not fit.

    side: pixels a side that it reads.  labels: of the last layer's units.
    """
    module, layers = Classifier(plan), weights.tree(part.tensors)
    weights.check(weights.shapes(module, (side, side, 3)), layers)
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    outputs = jax.eval_shape(module.apply, {"params": layers}, image)
    shapes = {name: outputs[name].shape[1:] for name in (*(one.name for one in plan), PROB)}
    if shapes[plan[-1].name] != (len(labels),):
        raise ValueError(f"expected {shapes[plan[-1].name][0]} labels, got {len(labels)}")
    if not all(isinstance(label, str) for label in labels):
        raise ValueError("expected labels that are texts")
    quantiles, natural = np.asarray(quantiles, float), {}
    rising = quantiles.ndim == 1 and (np.diff(quantiles, prepend=-1e-9, append=101) > 0).all()
    if not rising:
        raise ValueError(f"expected quantiles that rise from 0 to 100, file has {quantiles}")
    for layer in shapes:
        if f"natural/{layer}" in part.tensors:
            if not quantiles.size:
                raise ValueError(f"natural/{layer} is there and its quantiles are not")
            natural[layer] = values = part.tensors[f"natural/{layer}"]
            if values.shape != (want := (*quantiles.shape, *shapes[layer])):
                raise ValueError(f"expected natural/{layer} {want}, file has {values.shape}")
    return Network(name, plan, layers, pixels, labels, shapes, quantiles, natural)


def _parts(name, side, networks, parts, generator, plan, drawn):
    """`Parts` of classifiers, the files they came from, and a generator's file and plan."""
    code, layers = networks[0].shapes["fc6"], weights.tree(generator.tensors)
    weights.check(weights.shapes(Generator(plan), code), layers)
    codes, starts = _natural_codes(code, parts[0])
    hashes = {part.name: part.digest for part in (*parts, generator)}
    drawer = Drawer(plan, layers, drawn)
    return Parts(name, networks, drawer, side, codes, starts, hashes, parts[0].record)


def _natural_codes(code, part):
    """(`Natural`, starts) as measured on natural pictures, or what holds without: E is a ReLU."""
    if "codes/starts" not in part.tensors:
        return Natural(lower=np.zeros(code, np.float32)), None
    upper, starts = part.tensors["codes/upper"], part.tensors["codes/starts"]
    for key, array, want in (
        ("codes/upper", upper, code),
        ("codes/starts", starts, (len(starts), *code)),
    ):
        if array.shape != want or not array.size:
            raise ValueError(f"expected {key} {want}, file has {array.shape}")
    if (upper < 0).any():
        raise ValueError("expected codes/upper that are not negative")
    square = float(part.record["code_square"])
    if not 0 < square < np.inf:
        raise ValueError(f"expected a positive code_square, file has {square}")
    return Natural(np.zeros_like(upper), upper, square, square), starts


def _drawn(name, expected, seed, plan=(), scales=None):
    """What a weight file would hold, with random weights."""
    tensors = weights.random(expected, seed, plan, scales)
    return weights.WeightFile(f"{name} (random)", tensors, {}, weights.digest(tensors))
