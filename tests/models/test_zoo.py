import dataclasses
import hashlib
import json
import math
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from inverse_set import cli, errors
from inverse_set.models import base, bind, mini, zoo
from inverse_set.models.classifier import Classifier
from inverse_set.models.generator import Generator
from inverse_set.models.units import Unit
from inverse_set.types import Constraint

QUANTILES = [1, 25, 50, 75, 99.9]
RECORD = {
    "labels": ["goldfish, Carassius auratus", "monarch", "king penguin"],
    "wordnet": ["n01443537", "n02279972", "n02056570"],
    "resolution": 64,
    "width": 4,
    "quantiles": QUANTILES,
    "code_square": 12.5,
    "top1": 0.5,
    "agreement": 0.25,
    "relative_error": 0.125,
}
CLASSIFIER, GENERATOR = "mini_classifier.safetensors", "mini_generator.safetensors"
UNITS = [Unit("fc8", (2,)), Unit("fc6", (100,)), Unit("conv5", (1, 6, 9)), Unit("fc8", (0,))]


def tensors_of(network, example, rng):
    """Random fp16 weights under the names that the files use."""
    params = jax.eval_shape(network.init, jax.random.key(0), example)["params"]
    tensors = {}
    for layer, leaves in params.items():
        for leaf, value in leaves.items():
            scale = math.sqrt(2 / math.prod(value.shape[:-1]))
            tensors[f"{layer}/{leaf}"] = scale * rng.normal(size=value.shape)
    return tensors


def make_contents():
    """The tensors of a small pair, laid out as experiments/mini_export.py writes them."""
    rng = np.random.default_rng(0)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    code = jax.ShapeDtypeStruct((1, 128), jnp.float32)
    classifier = tensors_of(Classifier(mini.classifier_plan(3, 4)), image, rng)
    generator = tensors_of(Generator(mini.generator_plan(4)), code, rng)
    for layer, shape in (("conv5", (16, 16, 24)), ("fc6", (128,)), ("fc7", (128,)), ("fc8", (3,))):
        classifier[f"natural/{layer}"] = np.sort(rng.normal(size=(len(QUANTILES), *shape)), axis=0)
    classifier["codes/upper"] = rng.uniform(1, 2, 128)
    classifier["codes/starts"] = rng.uniform(0, 1, (7, 128))
    parts = {CLASSIFIER: classifier, GENERATOR: generator}
    return {
        name: {key: np.asarray(value, np.float16) for key, value in tensors.items()}
        for name, tensors in parts.items()
    }


@pytest.fixture(scope="module")
def contents():
    return make_contents()


def write(folder, contents, record=RECORD):
    metadata = {"record": json.dumps(record)}
    for name, tensors in contents.items():
        safetensors.numpy.save_file(tensors, folder / name, metadata)


@pytest.fixture
def folder(tmp_path, contents, monkeypatch):
    """Where the zoo looks for the small pair, to be damaged."""
    write(tmp_path, contents)
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def model(tmp_path_factory, contents):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zoo, "FOLDER", tmp_path_factory.mktemp("weights"))
        write(zoo.FOLDER, contents)
        return zoo.load.__wrapped__("mini")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).integers(0, 256, (5, 64, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def outputs(model, images):
    """Every activation of the images, by the Flax network."""
    network = Classifier(model.encoder.plan)
    x = mini.preprocess(jnp.asarray(images, jnp.float32) / 255)
    return jax.device_get(jax.jit(network.apply)({"params": model.encoder.weights}, x))


def refused():
    """The UserError with which loading the files ends."""
    with pytest.raises(errors.UserError) as caught:
        zoo.load.__wrapped__("mini")
    assert caught.value.code == errors.WEIGHTS == 4
    assert caught.value.what
    assert "reinstall" in caught.value.remedy
    assert "\n" not in caught.value.remedy
    return caught.value.what


def test_the_record_says_whether_the_generator_has_residual_layers(folder, contents):
    rng, code = np.random.default_rng(1), jax.ShapeDtypeStruct((1, 128), jnp.float32)
    plan = mini.generator_plan(4, residual=True)
    larger = {k: v.astype(np.float16) for k, v in tensors_of(Generator(plan), code, rng).items()}
    write(folder, {GENERATOR: larger}, RECORD | {"residual": True})
    model = zoo.load.__wrapped__("mini")
    assert model.generator.plan == plan and "conv2_1" in model.generator.weights
    write(folder, {GENERATOR: larger})
    assert "conv2_1 is there and not expected" in refused()
    write(folder, {GENERATOR: contents[GENERATOR]}, RECORD | {"residual": True})
    assert "conv2_1 is expected and not there" in refused()


def test_load_returns_what_was_written(model, contents):
    classifier, generator = contents[CLASSIFIER], contents[GENERATOR]
    assert (model.name, model.resolution, model.encoder.labels) == (
        "mini",
        64,
        tuple(RECORD["labels"]),
    )
    assert model.record == RECORD
    for tensors, weights in (
        (classifier, model.encoder.weights),
        (generator, model.generator.weights),
    ):
        names = {key for key in tensors if key.split("/")[1] in ("kernel", "bias")}
        assert names == {f"{layer}/{leaf}" for layer in weights for leaf in weights[layer]}
        for key in names:
            layer, leaf = key.split("/")
            assert weights[layer][leaf].dtype == np.float32
            np.testing.assert_array_equal(weights[layer][leaf], tensors[key])
    assert list(model.encoder.shapes) == [*(layer.name for layer in model.encoder.plan), "prob"]
    assert model.encoder.shapes["conv5"] == (16, 16, 24)
    assert model.encoder.shapes["fc8"] == model.encoder.shapes["prob"] == (3,)
    assert list(model.encoder.quantiles) == QUANTILES
    assert set(model.encoder.natural) == {"conv5", "fc6", "fc7", "fc8"}
    for layer, values in model.encoder.natural.items():
        np.testing.assert_array_equal(values, classifier[f"natural/{layer}"])
    np.testing.assert_array_equal(model.starts, classifier["codes/starts"])
    np.testing.assert_array_equal(model.codes.upper, classifier["codes/upper"])
    np.testing.assert_array_equal(model.codes.lower, np.zeros(128))
    assert model.codes.code_square == model.codes.feature_square == 12.5


def test_hashes_are_those_of_the_files(folder):
    hashes = zoo.load.__wrapped__("mini").digests
    assert hashes == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in (CLASSIFIER, GENERATOR)
    }


def test_a_model_is_loaded_once(folder):
    zoo.load.cache_clear()
    try:
        assert zoo.load("mini") is zoo.load("mini")
    finally:
        zoo.load.cache_clear()


@pytest.mark.parametrize("name", ["Mini", "vgg", "", "../mini"])
def test_unknown_models(name):
    with pytest.raises(errors.UserError, match="mini") as caught:
        zoo.load.__wrapped__(name)
    assert caught.value.code == errors.USAGE == 2
    assert repr(name) in caught.value.what


@pytest.mark.parametrize("name", [CLASSIFIER, GENERATOR])
def test_missing_files(folder, name):
    (folder / name).unlink()
    assert name in refused()


@pytest.mark.parametrize("name", [CLASSIFIER, GENERATOR])
@pytest.mark.parametrize("share", [0, 4, 8, 100, 0.5, -1])
def test_truncated_files(folder, name, share):
    data = (folder / name).read_bytes()
    length = int(share * len(data)) if share == 0.5 else share
    (folder / name).write_bytes(data[:length])
    assert name in refused()


@pytest.mark.parametrize(
    "data",
    [
        b"not weights at all, but text of some length",
        b"\x00" * 64,
        b"\xff" * 64,
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2**40) + b"{}",
        np.random.default_rng(0).bytes(5000),
    ],
)
@pytest.mark.parametrize("name", [CLASSIFIER, GENERATOR])
def test_garbage(folder, name, data):
    (folder / name).write_bytes(data)
    refused()


def test_a_folder_in_place_of_a_file(folder):
    (folder / CLASSIFIER).unlink()
    (folder / CLASSIFIER).mkdir()
    assert CLASSIFIER in refused()


@pytest.mark.parametrize("name, key", [(CLASSIFIER, "fc7/bias"), (GENERATOR, "deconv4/kernel")])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers(folder, contents, name, key, value):
    bad = contents[name][key].copy()
    bad.flat[-1] = value
    write(folder, {name: contents[name] | {key: bad}})
    message = refused()
    assert name in message
    assert key in message


@pytest.mark.parametrize(
    "name, key, shape, both",
    [
        (CLASSIFIER, "fc6/kernel", (128, 384), ("fc6.kernel", "(384, 128)", "(128, 384)")),
        (CLASSIFIER, "fc8/kernel", (128, 4), ("fc8.kernel", "(128, 3)", "(128, 4)")),
        (CLASSIFIER, "conv1/kernel", (5, 5, 1, 6), ("conv1.kernel", "3, 6)", "(5, 5, 1, 6)")),
        (CLASSIFIER, "conv2/bias", (1,), ("conv2.bias", "(12,)", "(1,)")),
        (GENERATOR, "deconv5/kernel", (4, 4, 24, 16), ("deconv5.kernel", "16, 24)", "24, 16)")),
        (CLASSIFIER, "codes/upper", (127,), ("codes/upper", "(127,)", "(128,)")),
        (CLASSIFIER, "codes/starts", (7, 127), ("codes/starts", "128", "127")),
        (CLASSIFIER, "codes/upper", (), ("codes/upper",)),
        (CLASSIFIER, "natural/fc8", (5, 2), ("natural/fc8", "(5, 3)", "(5, 2)")),
        (CLASSIFIER, "natural/conv5", (4, 16, 16, 24), ("natural/conv5", "(5, 16", "(4, 16")),
    ],
)
def test_wrong_shapes_name_both_sides(folder, contents, name, key, shape, both):
    write(folder, {name: contents[name] | {key: np.ones(shape, np.float16)}})
    message = refused()
    for part in both:
        assert part in message


@pytest.mark.parametrize(
    "name, keys, part",
    [
        (CLASSIFIER, ["conv3/kernel", "conv3/bias"], "conv3"),
        (CLASSIFIER, ["conv3/bias"], "bias"),
        (GENERATOR, ["defc5/kernel", "defc5/bias"], "defc5"),
        (GENERATOR, ["deconv0/kernel"], "kernel"),
        (CLASSIFIER, ["codes/upper"], "codes/upper"),
        (CLASSIFIER, ["codes/starts"], "codes/starts"),
    ],
)
def test_missing_tensors(folder, contents, name, keys, part):
    write(folder, {name: {k: v for k, v in contents[name].items() if k not in keys}})
    assert part in refused()


@pytest.mark.parametrize("key", ["conv6/kernel", "kernel", "a/b/kernel"])
@pytest.mark.parametrize("name", [CLASSIFIER, GENERATOR])
def test_tensors_that_nobody_asked_for(folder, contents, name, key):
    write(folder, {name: contents[name] | {key: np.ones(2, np.float16)}})
    refused()


@pytest.mark.parametrize(
    "change",
    [
        {"labels": 3},
        {"labels": None},
        {"labels": ["a", "b"]},
        {"labels": []},
        {"width": "4"},
        {"width": 0},
        {"width": -4},
        {"width": 10**9},
        {"width": None},
        {"resolution": 2},
        {"resolution": 0},
        {"resolution": 63},
        {"resolution": "64"},
        {"quantiles": None},
        {"quantiles": [1, 2]},
        {"quantiles": ["a", "b", "c", "d", "e"]},
        {"code_square": "many"},
    ],
    ids=json.dumps,
)
def test_records_that_do_not_fit(folder, contents, change):
    write(folder, {CLASSIFIER: contents[CLASSIFIER]}, RECORD | change)
    refused()


@pytest.mark.parametrize("key", ["labels", "width", "resolution", "quantiles", "code_square"])
def test_records_that_lack_something(folder, contents, key):
    record = {name: value for name, value in RECORD.items() if name != key}
    write(folder, {CLASSIFIER: contents[CLASSIFIER]}, record)
    assert key in refused()


@pytest.mark.parametrize("record", [[], None, "text", 3], ids=json.dumps)
def test_records_that_are_no_records(folder, contents, record):
    write(folder, {CLASSIFIER: contents[CLASSIFIER]}, record)
    refused()


def test_a_record_that_is_no_json(folder, contents):
    metadata = {"record": "{"}
    safetensors.numpy.save_file(contents[CLASSIFIER], folder / CLASSIFIER, metadata)
    assert CLASSIFIER in refused()


def test_files_without_a_record(folder, contents):
    safetensors.numpy.save_file(contents[CLASSIFIER], folder / CLASSIFIER)
    assert "labels" in refused()


def test_no_flipped_byte_in_the_header_ends_in_another_error(folder):
    """300 files with one byte changed: each loads, or is refused with a remedy."""
    path = folder / CLASSIFIER
    data = path.read_bytes()
    end = 8 + struct.unpack("<Q", data[:8])[0]
    rng = np.random.default_rng(0)
    loaded = 0
    for place in rng.integers(0, end, 300):
        flipped = bytearray(data)
        flipped[place] ^= rng.integers(1, 256)
        path.write_bytes(flipped)
        try:
            zoo.load.__wrapped__("mini")
            loaded += 1
        except errors.UserError as error:
            assert error.code == errors.WEIGHTS
    assert 0 < loaded < 300


@pytest.mark.parametrize("byte", "0123456789-. ")
@pytest.mark.parametrize("key", ["resolution", "width"])
def test_another_digit_in_the_record_is_refused(folder, key, byte):
    """The numbers that the networks are built from, before any tensor is compared."""
    path = folder / CLASSIFIER
    data = path.read_bytes()
    start = data.index(key.encode()) + len(key) + len('\\": ')
    for place in range(start, start + len(str(RECORD[key]))):
        changed = data[:place] + byte.encode() + data[place + 1 :]
        if changed != data:
            path.write_bytes(changed)
            refused()


def test_networks_read_the_encoder_and_the_units(model, images, outputs):
    networks = bind.networks(model, UNITS)
    features, activations = jax.jit(networks.read)(images.astype(np.float32) / 255)
    close = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(features, outputs["relu6"], **close)
    expected = [
        outputs["fc8"][:, 2],
        outputs["fc6"][:, 100],
        outputs["conv5"][:, 1, 6, 9],
        outputs["fc8"][:, 0],
    ]
    np.testing.assert_allclose(activations, np.stack(expected, axis=1), **close)


@pytest.mark.parametrize("unit", [Unit("pool1", (31, 0, 3)), Unit("conv2", (0, 31, 11))])
def test_networks_of_a_unit_before_the_encoder(model, images, outputs, unit):
    networks = bind.networks(model, [unit])
    features, activations = jax.jit(networks.read)(images.astype(np.float32) / 255)
    np.testing.assert_allclose(features, outputs["relu6"], rtol=1e-4, atol=1e-5)
    expected = outputs[unit.layer][(slice(None), *unit.index)]
    np.testing.assert_allclose(activations[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_networks_generate_and_finish(model):
    networks = bind.networks(model, UNITS[:1])
    generated = jax.jit(networks.generate)(model.starts[:2])
    apply = jax.jit(Generator(model.generator.plan).apply)
    expected = apply({"params": model.generator.weights}, model.starts[:2])
    assert generated.shape == (2, 64, 64, 3)
    np.testing.assert_allclose(generated, expected, rtol=1e-6)
    np.testing.assert_array_equal(networks.finish(generated), base.eight_bits(generated))


def test_another_unit_compiles_nothing(model):
    """One trace serves every unit of the same layers, another layer asks for a second."""
    traces = []

    @jax.jit
    def run(networks, codes):
        traces.append(1)
        return networks.read(networks.finish(networks.generate(codes)))[1]

    codes = model.starts[:2]
    first = run(bind.networks(model, [Unit("fc8", (0,)), Unit("conv5", (4, 4, 0))]), codes)
    second = run(bind.networks(model, [Unit("fc8", (2,)), Unit("conv5", (0, 7, 15))]), codes)
    assert len(traces) == 1
    assert not np.isclose(first, second).any()
    jax.eval_shape(run, bind.networks(model, [Unit("fc7", (0,)), Unit("conv5", (4, 4, 0))]), codes)
    assert len(traces) == 2


def test_measure_agrees_with_the_network(model, images, outputs):
    """In batches that do not divide the number of images."""
    measured = bind.measure(model, images, UNITS, batch=2)
    expected = [outputs[unit.layer][(slice(None), *unit.index)] for unit in UNITS]
    assert measured.dtype == np.float64
    np.testing.assert_allclose(measured, np.stack(expected, axis=1), rtol=1e-4, atol=1e-5)
    assert bind.measure(model, images[:0], UNITS).shape == (0, 4)


def test_raw_activations_are_those_before_rounding(model):
    codes = model.starts[:5]
    networks = bind.networks(model, UNITS)
    expected = jax.jit(lambda codes: networks.read(networks.generate(codes))[1])(codes)
    raw = bind.raw_activations(model, UNITS, codes, batch=3)
    np.testing.assert_allclose(raw, expected, rtol=1e-4, atol=1e-5)
    assert bind.raw_activations(model, UNITS, codes[:0]).shape == (0, 4)


@pytest.mark.parametrize("compiled", [False, True])
def test_quantised_images_are_those_of_an_8_bit_file(compiled):
    quantise = jax.jit(base.eight_bits) if compiled else base.eight_bits
    rng = np.random.default_rng(0)
    levels = np.arange(256, dtype=np.float32)
    images = np.concatenate([rng.uniform(-0.2, 1.2, 5000), levels / 255]).astype(np.float32)
    once = np.asarray(quantise(images))
    assert once.dtype == np.float32
    np.testing.assert_array_equal(quantise(once), once)
    np.testing.assert_array_equal(np.round(once * 255) / np.float32(255), once)
    file = np.round(once * 255).astype(np.uint8)
    np.testing.assert_array_equal(file[-256:], levels)
    np.testing.assert_array_equal(file.astype(np.float32) / np.float32(255), once)
    assert np.abs(once - np.clip(images, 0, 1)).max() <= 0.5 / 255 + 1e-7


@pytest.mark.parametrize("kind", ["nearest", "natural", "gaussian", "noise"])
def test_starting_codes_follow_the_seed(model, kind):
    codes = bind.starting_codes(model, kind, 5, 0)
    assert codes.shape == (5, 128)
    assert codes.dtype == np.float32
    assert np.isfinite(codes).all()
    np.testing.assert_array_equal(bind.starting_codes(model, kind, 5, 0), codes)
    assert not np.array_equal(bind.starting_codes(model, kind, 5, 1), codes)


def test_natural_starting_codes_repeat_only_once_all_are_used(model):
    """The small pair knows 7 codes: the first 7 drawn are all of them, and so are the next."""
    codes = bind.starting_codes(model, "natural", 17, 0)
    rows = [np.flatnonzero((model.starts == code).all(1)).item() for code in codes]
    assert sorted(rows[:7]) == sorted(rows[7:14]) == list(range(7))
    assert len(set(rows[14:])) == 3
    assert rows[:7] != rows[7:14]


def test_the_nearest_codes_are_those_whose_pictures_are(model):
    """Two of the four of seven nearest, by whichever of two intervals is missed by more widths."""
    chosen = [Unit("fc8", (0,)), Unit("conv5", (8, 8, 1))]
    activations = bind.raw_activations(model, chosen, model.starts)
    intervals = np.quantile(activations, [0.6, 0.9], axis=0).T
    low, high = intervals.T
    intervals = [Constraint("", *ends) for ends in intervals]
    outside = np.where(activations < low, low - activations, activations - high) / (high - low)
    order = np.argsort(np.maximum(outside, 0).max(1), kind="stable")
    drawn = [bind.starting_codes(model, "nearest", 2, seed, chosen, intervals) for seed in range(9)]
    rows = {np.flatnonzero((model.starts == code).all(1)).item() for two in drawn for code in two}
    assert rows == set(order[:4])
    for count, among in ((4, 5), (6, 6), (7, 7), (9, 7)):  # fewer than twice as many are left
        drawn = [
            bind.starting_codes(model, "nearest", count, s, chosen, intervals) for s in range(9)
        ]
        rows = {np.flatnonzero((model.starts == c).all(1)).item() for some in drawn for c in some}
        assert rows == set(order[:among])


def test_natural_codes_are_looked_at_once_a_layer(model):
    unit = Unit("conv5", (3, 4, 1))
    found = bind.natural_layer(model, unit)
    one = bind.raw_activations(model, [unit], model.starts)
    np.testing.assert_allclose(found[:, 1], one[:, 0], rtol=1e-4, atol=1e-5)
    assert bind.natural_layer(model, Unit("conv5", (3, 4, 5))) is found
    assert bind.natural_layer(model, Unit("conv5", (4, 4, 1))) is not found
    fewer = dataclasses.replace(model, prior=model.prior._replace(codes=model.starts[:3]))
    assert len(bind.natural_layer(fewer, unit)) == 3
    for row in range(bind.LAYERS + 3):
        bind.natural_layer(model, Unit("conv5", (row, 0, 1)))
    assert len(bind._natural) == bind.LAYERS


def test_kinds_of_starting_codes_differ(model):
    """Gaussian ones are standard; noise is a picture passed through E, so never negative."""
    gaussian = bind.starting_codes(model, "gaussian", 200, 0)
    assert abs(gaussian.mean()) < 0.05
    assert abs(gaussian.std() - 1) < 0.05
    noise = bind.starting_codes(model, "noise", 5, 0)
    assert (noise >= 0).all()
    assert (noise > 0).any()
    natural = bind.starting_codes(model, "natural", 5, 0)
    assert not np.allclose(noise, natural)


SCENES = "mini_scenes.safetensors"
PLACES = {"labels": ["beach", "street"], "resolution": 64, "width": 4, "quantiles": QUANTILES}


@pytest.fixture
def with_scenes(folder, contents):
    """The small pair and a classifier of two scenes; its fc8 alone has another shape."""
    kept = {key: 2 * v for key, v in contents[CLASSIFIER].items() if not key.startswith("codes/")}
    kept |= {key: kept[key][..., 1:] for key in ("fc8/kernel", "fc8/bias", "natural/fc8")}
    write(folder, {SCENES: kept}, PLACES)
    return folder


def test_a_subject_brings_its_units_and_nothing_else(with_scenes, images):
    model, pair = zoo.load.__wrapped__("mini", "scenes"), zoo.load.__wrapped__("mini")
    assert [network.name for network in model.networks] == ["mini", "scenes"]
    assert model.encoder.labels == pair.encoder.labels
    assert model.subject.labels == ("beach", "street")
    np.testing.assert_array_equal(model.starts, pair.starts)
    assert model.digests == pair.digests | {
        SCENES: hashlib.sha256((with_scenes / SCENES).read_bytes()).hexdigest()
    }
    measured = bind.measure(model, images, [Unit("fc8", (1,)), Unit("fc8", (1,), "mini")])
    for network, column in zip(model.networks[::-1], measured.T, strict=True):
        x = mini.preprocess(jnp.asarray(images, jnp.float32) / 255)
        outputs = Classifier(network.plan).apply({"params": network.weights}, x)
        np.testing.assert_allclose(column, outputs["fc8"][:, 1], rtol=1e-4, atol=1e-5)


def test_a_model_is_its_own_subject(folder):
    model = zoo.load.__wrapped__("mini", "mini")
    assert model.networks == (model.encoder,)


@pytest.mark.parametrize("change", [{"resolution": 32}, {"width": 8}, {"labels": ["beach"]}, None])
def test_a_subject_that_does_not_fit(with_scenes, change):
    data = (with_scenes / SCENES).read_bytes()
    if change is None:
        (with_scenes / SCENES).write_bytes(data[:1000])
    else:
        write(with_scenes, {SCENES: safetensors.numpy.load(data)}, PLACES | change)
    with pytest.raises(errors.UserError, match="scenes") as caught:
        zoo.load.__wrapped__("mini", "scenes")
    assert caught.value.code == errors.WEIGHTS
    assert "reinstall" in caught.value.remedy


def test_a_subject_that_is_not_there(folder):
    with pytest.raises(errors.UserError, match=SCENES) as caught:
        zoo.load.__wrapped__("mini", "scenes")
    assert caught.value.code == errors.WEIGHTS
    assert "train_mini" in caught.value.remedy


@pytest.mark.parametrize(
    "name, subject, words",
    [
        ("mini", "places205", ("scenes with --model=mini", "places205 with --model=caffenet")),
        ("mini", "caffenet", ("scenes with --model=mini",)),
        ("caffenet", "scenes", ("scenes with --model=mini", "alexnet, places205")),
        ("caffenet", "mini", ("alexnet, places205",)),
        ("scenes", None, ("--model=mini --subject=scenes",)),
        ("alexnet", None, ("--model=caffenet --subject=alexnet",)),
    ],
)
def test_subjects_go_with_their_pair(name, subject, words):
    with pytest.raises(errors.UserError) as caught:
        zoo.load.__wrapped__(name, subject)
    assert caught.value.code == errors.USAGE
    assert "\n" not in caught.value.remedy
    assert all(word in caught.value.remedy for word in words), caught.value.remedy


def test_an_untrained_subject_is_not_the_untrained_encoder(with_scenes):
    model = zoo.load.__wrapped__("mini", "scenes", "random:3")
    assert model.untrained == "random:3" and model.starts is None
    assert not model.subject.natural
    first, second = (network.weights["conv1"]["kernel"] for network in model.networks)
    assert not np.isclose(first, second).any()
    assert len(model.digests) == 3
    assert zoo.load.__wrapped__("mini", "scenes", "random:3").digests == model.digests


@pytest.mark.slow
def test_the_bundled_scenes_are_sampled_and_certified(tmp_path, capsys):
    subject = zoo.load("mini", "scenes").subject
    assert cli.run(["units", "--model=mini", "--subject=scenes"]) == 0
    said = capsys.readouterr().out
    assert "p99.9" in said and all(label in said for label in subject.labels)
    name, folder = subject.labels[0], tmp_path / "run"
    flags = [f"--constraint=fc8/{name}:p95:p99.9", "--num_samples=12", "--num_seeds=6"]
    assert cli.run(["sample", "--subject=scenes", *flags, f"--out={folder}"]) == 0
    record = json.loads((folder / "run.json").read_text())
    assert (record["model"], record["subject"]) == ("mini", "scenes")
    assert SCENES in record["weights"]
    assert cli.run(["verify", str(folder)]) == 0
    assert "12 of 12 pictures lie inside" in capsys.readouterr().out
