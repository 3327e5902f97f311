"""The full-size networks with random weights, from the command to a verified folder."""

import json

import numpy as np
import pytest

from inverse_set import cli, results
from inverse_set.models import bind, units, zoo

RANDOM = ["--model=caffenet", "--weights=random:0"]


@pytest.fixture(scope="module", autouse=True)
def forget():
    """Half a gigabyte of random weights is not kept for the other tests."""
    yield
    zoo.load.cache_clear()


def interval(model, text, count):
    """`text` with an interval that holds the upper half of the starts' activations."""
    unit = units.parse_unit(model, text)
    codes = bind.starting_codes(model, bind.default_start(model), count, 0)
    values = bind.raw_activations(model, [unit], np.maximum(codes, 0))[:, 0]
    return f"--constraint={text}:{np.median(values):.6g}:{values.max() + np.ptp(values):.6g}"


def test_a_class_unit(tmp_path, capsys):
    model = zoo.load("caffenet", None, "random:0")
    folder = tmp_path / "run"
    flags = [interval(model, "fc8/volcano", 3), "--num_samples=5", "--num_seeds=3"]
    assert cli.run(["sample", *RANDOM, *flags, f"--out={folder}"]) == 0
    said = capsys.readouterr()
    assert "random" in said.err and "RANDOM" in said.out and "untrained" in said.out
    samples, record = results.load(folder)
    assert samples.images.shape == (5, 256, 256, 3)
    assert len(np.unique(samples.images.reshape(5, -1), axis=0)) == 5
    assert record["untrained"] == "random:0" and record["start"] == "gaussian"
    assert "untrained" in (folder / "gallery.html").read_text()
    assert cli.run(["verify", str(folder)]) == 0
    assert "5 of 5 pictures lie inside" in capsys.readouterr().out


def test_another_network_with_the_first_ones_generator_and_encoder(tmp_path, capsys):
    """Fig. 6's arrangement, intersected with a hidden unit of the encoder, in micro-batches."""
    model = zoo.load("caffenet", "places205", "random:0")
    assert [network.name for network in model.networks] == ["caffenet", "places205"]
    folder = tmp_path / "run"
    flags = ["--subject=places205", "--num_samples=4", "--num_seeds=2", "--batch=1"]
    flags += [interval(model, text, 2) for text in ("fc8/gas station", "caffenet.conv5/196@6,6")]
    assert cli.run(["sample", *RANDOM, *flags, f"--out={folder}"]) == 0
    samples, record = results.load(folder)
    assert samples.activations.shape == (4, 2)
    names = [constraint["name"] for constraint in record["constraints"]]
    assert names == ["places205.fc8/gas station", "caffenet.conv5/196@6,6"]
    assert record["subject"] == "places205"
    assert cli.run(["verify", str(folder)]) == 0
    (folder / "run.json").write_text(json.dumps(record | {"untrained": "random:1"}))
    capsys.readouterr()
    assert cli.run(["verify", str(folder)]) == 4
    assert "other weights" in capsys.readouterr().err


def test_a_dry_run_says_what_it_would_take(capsys):
    flags = ["--constraint=fc8/volcano:0:1", "--num_samples=500", "--num_seeds=2", "--dry_run"]
    assert cli.run(["sample", *RANDOM, *flags]) == 0
    said = capsys.readouterr().out
    assert "3.46 GFLOP" in said and "249 steps" in said and "nothing was sampled" in said
    assert "447 MiB" in said  # 117 million weights


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--model=caffenet"], 4, ("fetch caffenet", "convert FILE --network=caffenet")),
        (["--model=alexnet"], 2, ("--subject=alexnet",)),
        (["--model=caffenet", "--subject=vgg"], 2, ("alexnet, places205",)),
        (["--subject=places205"], 2, ("--model=caffenet",)),
        (["--weights=random"], 2, ("random:0",)),
        (["--weights=file:3"], 2, ("random:0",)),
        ([*RANDOM, "--start=natural"], 2, ("--start=noise",)),
        ([*RANDOM, "--constraint=fc8/crane:0:1"], 2, ("134", "517")),
        ([*RANDOM, "--constraint=places205.fc8/0:0:1"], 2, ("--subject",)),
        ([*RANDOM, "--constraint=fc8/volcano:p5:p95"], 2, ("give numbers",)),
    ],
)
def test_what_cannot_work(tmp_path, capsys, monkeypatch, flags, code, words):
    monkeypatch.setenv("INVERSE_SET_HOME", str(tmp_path / "home"))
    flags = ["--constraint=fc8/volcano:0:1", "--num_samples=4", "--num_seeds=2", *flags]
    assert cli.run(["sample", *flags, f"--out={tmp_path / 'x'}"]) == code
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    assert "Traceback" not in said and not (tmp_path / "x").exists()
