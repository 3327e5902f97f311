"""Models of one's own, from the guides: from the adapter to a folder that `verify` passes."""

import dataclasses
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import inverse_set
from inverse_set import cli, report, results
from inverse_set.errors import UserError
from inverse_set.models import bind, own

GUIDES = pathlib.Path(__file__).parent.parent / "docs" / "guides" / "own_model"
EXAMPLES = {
    "linen_cnn": "logits/disc",
    "nnx_cnn": "logits/square",
    "plain_cnn": "logits/cross",
    "tabular_mlp": "logits/risky",
}


def place(name):
    return f"{GUIDES / name}.py:model"


@pytest.fixture(scope="module")
def models():
    """{name: its model}; each is trained once."""
    return {name: own.load_own(place(name)) for name in EXAMPLES}


@pytest.mark.parametrize("name", EXAMPLES)
def test_from_the_adapter_to_a_verified_folder(name, models, monkeypatch, tmp_path, capsys):
    trained = types.SimpleNamespace(model=models[name])  # once, not with every command
    monkeypatch.setattr(own, "_module", lambda place, text: trained)
    folder, model = tmp_path / "run", models[name]
    flags = [f"--model={place(name)}", "--num_samples=20", "--num_seeds=5", f"--out={folder}"]
    assert cli.run(["sample", *flags, f"--constraint={EXAMPLES[name]}:p75:p99"]) == 0
    capsys.readouterr()
    assert cli.run(["verify", str(folder), f"--model={place(name)}"]) == 0
    said = capsys.readouterr()
    assert "20 of 20" in said.out and "own functions" in said.err
    assert cli.run(["verify", str(folder)]) == 2
    assert "--model=FILE.py:NAME" in capsys.readouterr().err
    samples, record = results.load(folder)
    assert record["certificate"] == report.REPEATED and record["own"] is True
    assert samples.images.shape[1:] == model.image.shape
    assert len(np.unique(samples.images.reshape(20, -1), axis=0)) == 20
    with Image.open(folder / "grid.png") as grid:
        assert np.asarray(grid).std() > 10  # something is seen
    page = (folder / "gallery.html").read_text()
    assert page.count("<img ") == 20 and EXAMPLES[name] in page
    files = sorted(path.name for path in (folder / "images").glob("*")) if model.pictures else []
    assert len(files) == (20 if model.pictures else 0)
    if model.pictures:
        with Image.open(folder / "images" / files[3]) as picture:
            assert picture.mode == "L" and picture.size == (16, 16)
            np.testing.assert_array_equal(np.asarray(picture)[..., None], samples.images[3])
    else:
        assert samples.images.dtype == np.float32 and not (folder / "images").exists()
        changed = samples._replace(images=samples.images + 0.3)
        results.save(folder, changed, *_told(record), {}, "changed")
        assert cli.run(["verify", str(folder), f"--model={place(name)}"]) == 3
        said = capsys.readouterr().err
        assert "samples.npz: sample" in said and "lies outside" in said


def _told(record):
    asked = [inverse_set.Constraint(c["name"], c["low"], c["high"]) for c in record["constraints"]]
    return asked, {k: v for k, v in record.items() if k not in ("files", "constraints", "samples")}


def test_layers_are_named_as_their_submodules(models):
    expected = {"conv1": (8, 8, 8), "conv2": (4, 4, 16), "hidden": (32,), "logits": (3,)}
    for name in ("linen_cnn", "nnx_cnn"):
        shapes = dict(models[name].shapes)
        assert shapes.pop("output") == (3,) and shapes == expected, name
    assert models["plain_cnn"].shapes == expected
    images = np.random.default_rng(0).uniform(size=(3, 16, 16, 1)).astype(np.float32)
    for name in ("linen_cnn", "nnx_cnn"):
        found = models[name].layers(images)
        np.testing.assert_array_equal(found["logits"], found["output"])
        hidden = jax.nn.relu(found["conv2"]).reshape(3, -1)
        parts = jax.tree.leaves(models[name].layers)
        kernel, bias = (
            next(leaf for leaf in parts if leaf.shape == shape) for shape in ((256, 32), (32,))
        )
        np.testing.assert_allclose(found["hidden"], hidden @ kernel + bias, atol=1e-4)


def test_what_is_natural_is_measured(models):
    """Percentiles, range and spread, held against NumPy's own of the same inputs."""
    model = models["tabular_mlp"]
    rows = np.random.default_rng(0).uniform(-1, 1, (800, 6)).astype(np.float32)
    np.testing.assert_allclose(model.prior.lower, rows.min(0))
    np.testing.assert_allclose(model.prior.upper, rows.max(0))
    square = 2 * rows.var(0, ddof=1).sum()
    assert model.prior.code_square == pytest.approx(square, rel=1e-5)
    assert model.prior.feature_square == pytest.approx(square, rel=1e-5)  # E is the row itself
    logits = np.asarray(model.layers(rows)["logits"])
    at = list(model.quantiles).index(99.0)
    expected = np.percentile(logits, 99, axis=0)
    np.testing.assert_allclose(model.natural["logits"][at], expected, rtol=1e-4)
    assert bind.default_start(model) == "nearest"
    bare = dataclasses.replace(model, prior=model.prior._replace(codes=None))
    assert bind.default_start(bare) == "box"
    codes = bind.starting_codes(bare, "box", 500, 0)
    assert (codes >= model.prior.lower).all() and (codes <= model.prior.upper).all()
    assert np.ptp(codes, axis=0).min() > 1.8
    free = dataclasses.replace(bare, prior=inverse_set.Natural())
    assert bind.default_start(free) == "gaussian"
    with pytest.raises(UserError, match="no bounds"):
        bind.starting_codes(free, "box", 3, 0)


def test_a_measurement_is_kept_beside_the_model(models, tmp_path):
    model, file = models["tabular_mlp"], tmp_path / "measured.npz"
    rows = np.random.default_rng(1).normal(size=(50, 6)).astype(np.float32)
    first = inverse_set.measure(model, rows, codes=rows, file=file)
    again = inverse_set.measure(model, file=file)
    np.testing.assert_array_equal(first.prior.codes, again.prior.codes)
    assert first.prior.code_square == again.prior.code_square
    for layer, values in first.natural.items():
        np.testing.assert_array_equal(values, again.natural[layer])
    with pytest.raises(UserError, match="another model"):
        inverse_set.measure(models["plain_cnn"], file=file)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(UserError, match="no measurement"):
        inverse_set.measure(model, file=file)
    for bad, word in ((rows[:1], "N >= 2"), (rows[:, :5], "expected images"), (None, "nothing to")):
        with pytest.raises(UserError, match=word):
            inverse_set.measure(model, bad)
    with pytest.raises(UserError, match="NaN"):
        inverse_set.measure(model, np.full((3, 6), np.nan, np.float32))


def test_a_folder_of_pictures_is_measured(models, tmp_path):
    model = models["plain_cnn"]
    for number in range(4):
        shape = (20 + 7 * number, 33, 3)
        image = np.random.default_rng(number).integers(0, 256, shape, np.uint8)
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    found = inverse_set.measure(model, tmp_path)
    assert found.natural["logits"].shape == (len(found.quantiles), 3)
    assert found.prior.codes is model.prior.codes  # no codes were measured
    (tmp_path / "4.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"4\.jpg is no picture"):
        inverse_set.measure(model, tmp_path)
    with pytest.raises(UserError, match="no two pictures"):
        inverse_set.measure(model, tmp_path / "none")
    with pytest.raises(UserError, match="reads no pictures"):
        inverse_set.measure(models["tabular_mlp"], tmp_path)


def test_from_python(models, tmp_path):
    """Units and targets as objects, one end of an interval, a key, and what a run looks like."""
    model = models["tabular_mlp"]
    unit = model.unit("logits", "risky")
    target = unit.above(0.5) & model.unit("hidden/3").below("p75")
    assert repr(unit) == "<unit logits/risky of tabular_mlp>" and len(target) == 2
    found = inverse_set.sample(model, target, 30, 6, key=jax.random.key(7))
    assert found.status == inverse_set.Status.OK and len(found.samples.images) == 30
    values = model.layers(found.samples.images)
    high = found.constraints[1].high
    assert (np.asarray(values["logits"])[:, 1] >= 0.5).all() and np.isfinite(high)
    assert (np.asarray(values["hidden"])[:, 3] <= high + 1e-5).all()
    assert repr(found).startswith("<Found logits/risky in [0.5, inf]") and len(repr(found)) < 200
    assert "30 from 6 seeds" in found._repr_html_() and "data:image/png" in found._repr_html_()
    assert found.gallery().count("<img ") == 30
    found.save(tmp_path / "run")
    with pytest.raises(results.ResultsError, match="holds another run"):
        found.save(tmp_path / "run")
    found.save(tmp_path / "run", overwrite=True)
    _, record = results.load(tmp_path / "run")
    assert record["seed"] is None and record["command"] is None
    assert record["key"] == jax.random.key_data(jax.random.key(7)).tolist()
    assert record["asked"] == ["logits/risky:0.5:inf", "hidden/3:-inf:p75"]
    other = inverse_set.sample(model, target, 30, 6, key=jax.random.key(8))
    assert not np.array_equal(other.samples.codes, found.samples.codes)
    same = inverse_set.sample(model, target, 30, 6, key=jax.random.key(7))
    np.testing.assert_array_equal(same.samples.codes, found.samples.codes)
    with pytest.raises(UserError, match="two ends"):
        inverse_set.sample(model, target, 30, 6, settings=inverse_set.Settings(rule="paper"))


WEIGHTS = jnp.eye(4)


def read(weights, x):
    return {"a.b": x @ weights, "map": jnp.repeat(x[:, :, None], 3, 2)}


def small(**changes):
    fields = {
        "generate": inverse_set.as_is,
        "layers": jax.tree_util.Partial(read, WEIGHTS),
        "encode": "map",
        "code_size": 4,
    }
    return inverse_set.Model(**fields | changes)


def test_names_with_dots_and_features_of_more_than_one_axis():
    model = small()
    assert model.unit("a.b/2").unit == ("a.b", (2,), None)
    assert model.unit("map", 1, at=(3,)).unit == ("map", (3, 1), None)
    assert repr(model.unit("map/1")) == "<unit map/1@2 of own>"
    codes = np.arange(8, dtype=np.float32).reshape(2, 4)
    networks = bind.networks(model, [model.unit("map", 1, at=(3,)).unit, model.unit("a.b/0").unit])
    features, activations = networks.read(codes)
    assert features.shape == (2, 12) and activations.tolist() == [[3, 0], [7, 4]]
    assert not model.pictures and list(model.digests) == ["layers"]
    assert small(layers=jax.tree_util.Partial(read, 2 * WEIGHTS)).digests != model.digests


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"encode": "c"}, "no layer 'c'"),
        ({"labels": {"a.b": ("x",)}}, "1 labels of a.b"),
        ({"labels": {"c": ("x",)}}, "labels of c"),
        ({"natural": {"c": np.zeros((2, 4))}}, "no such layer"),
        ({"prior": inverse_set.Natural(lower=np.zeros(3))}, "bound of shape"),
        ({"code_size": 5}, "cannot be read from an input"),
        ({"generate": lambda codes: codes @ jnp.eye(3)}, "does not take codes"),
        ({"layers": lambda x: x}, "cannot be read"),
    ],
)
def test_models_that_cannot_be(changes, word):
    with pytest.raises(UserError, match=word) as caught:
        small(**changes)
    assert "\n" not in caught.value.what + caught.value.remedy and caught.value.remedy


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{0}/none.py:model", "no such file"),
        ("{0}/bad.py:absent", "no 'absent'"),
        ("{0}/bad.py:fails", "ZeroDivisionError: division by zero"),
        ("{0}/bad.py:number", "int, not a Model"),
        ("{0}/bad.py:five", "returns a int, not a Model"),
        ("{0}/broken.py:model", "SyntaxError"),
        ("no_such_package.module:model", "ModuleNotFoundError"),
        ("{0}/bad.py:", "is not where a model is"),
        ("{0}/exits.py:model", "SystemExit"),
    ],
)
def test_places_where_no_model_is(text, word, tmp_path, capsys):
    (tmp_path / "bad.py").write_text(
        "def fails(): 1 / 0\nnumber = 5\ndef five(): return 5\n", encoding="utf-8"
    )
    (tmp_path / "broken.py").write_text("def model(:\n")
    (tmp_path / "exits.py").write_text("raise SystemExit(3)\n")
    flags = [f"--model={text.format(tmp_path)}", "--constraint=a/0:1:2", f"--out={tmp_path}/x"]
    assert cli.run(["sample", *flags]) == 2
    said = capsys.readouterr().err
    assert word in said and len(said.splitlines()) == 2 and not (tmp_path / "x").exists()
