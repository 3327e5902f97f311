"""Experiments in their quick form: what they write, and that every sample lies inside."""

import pathlib
import types

import jax
import numpy as np
import pytest
from absl.flags import FLAGS

import inverse_set
from experiments import common, panels
from inverse_set import certified, results
from inverse_set.commands import verify
from tests.quick import experiment, run_quick, said_by

NUMBERS = {"samples", "inside", "beyond", "distance", "distance_per_dimension", "nearest", "vendi"}
NUMBERS |= {"found", "deciles", "largest_code", "saturated", "seed_steps", "steps", "seconds"}


def test_levels_are_all_reached_and_written(tmp_path):
    runs, numbers, size = experiment("fig3_hidden_levels", tmp_path)
    rows = [path.name for path in tmp_path.iterdir() if path.is_dir()]
    assert len(rows) == 2 and len(runs) == 4 and size[0] > 1280 and size[1] > 2 * 128
    assert set(runs[0]) == NUMBERS | {"row", "seed"}
    assert all(float(run["inside"]) == 1 and run["samples"] == "30" for run in runs)
    assert {line["number"] for line in numbers} == NUMBERS
    assert len(numbers) == 2 * len(NUMBERS)
    for line in numbers:
        values = [float(run[line["number"]]) for run in runs if run["row"] == line["row"]]
        low, mean, high = (float(line[key]) for key in ("low", "mean", "high"))
        assert low <= mean <= high and line["seeds"] == "2"
        np.testing.assert_allclose(mean, np.mean(values), rtol=1e-4)
    samples, record = results.load(tmp_path / "higher" / "seed1")
    assert len(samples.images) == 30 and record["seed"] == 1
    assert verify.main(tmp_path / "higher" / "seed1") == 0


def test_seconds_are_of_a_run_that_compiles_nothing():
    """The run before it is of the very program: XLA has nothing left to do, at another seed too."""
    if not FLAGS.is_parsed():
        FLAGS(["experiments"])
    model, compiled, timed = inverse_set.load("mini"), [], []

    def count(event, seconds, **_):
        if event.endswith("backend_compile_duration"):
            compiled.append(seconds)

    def sample(*arguments):
        before = len(compiled)
        found = certified.sample(*arguments)
        timed.append(len(compiled) - before)
        return found

    row = common.Row("row", ("fc8/monarch:p90:p99.9",), num_samples=7, num_seeds=3)
    jax.monitoring.register_event_duration_secs_listener(count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common, "certified", types.SimpleNamespace(sample=sample))
        patch.setattr(common, "_warm", set())
        for seed in (0, 1):
            found, _ = common.sample(model, row, seed)
            assert len(found.samples.images) == 7
    assert len(timed) == 3 and timed[0] > 0 and timed[1:] == [0, 0]


def test_codes_that_start_as_one(tmp_path):
    runs, _, _ = experiment("fig8_same_start", tmp_path)
    assert all(float(run["inside"]) == 1 for run in runs)
    distance = {(run["row"], run["seed"]): float(run["distance"]) for run in runs}
    for seed in "01":
        assert distance["eq6_equal", seed] < 0.2 * distance["eq15", seed]
        assert distance["eq6_on", seed] > 1.3 * distance["eq15", seed]


def test_a_choice_shows_as_many_chains_as_there_are():
    chain = np.repeat([0, 1, 2, 3], 25)
    rows = panels.choice(chain)
    assert len(np.unique(rows)) == 10 and sorted(np.bincount(chain[rows])) == [2, 2, 3, 3]
    assert len(np.unique(np.arange(40)[panels.choice(np.arange(40) % 10)] % 10)) == 10
    assert panels.choice(np.zeros(0, int)).tolist() == []
    assert panels.choice(np.zeros(3, int)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("shape", [(0, 32, 32, 3), (12, 32, 32, 3), (2, 227, 227, 3)])
def test_a_panel_places_its_pictures(shape):
    images = np.zeros(shape, np.uint8)
    sheet = np.asarray(panels.panel([(["a line"], images), (["another"] * 9, images)]))
    black = (sheet[64 + 8, -10 * 136 :: 136].max(-1) < 3).sum()
    assert black == min(10, shape[0])


def test_every_experiment_says_how_to_run_it():
    folder = pathlib.Path(panels.__file__).parent
    for pattern in ("fig*.py", "extra_*.py", "table*.py"):
        for path in folder.glob(pattern):
            assert f"python -m experiments.{path.stem}" in path.read_text(), path.name


def test_another_networks_units(tmp_path):
    runs, _, _ = experiment("fig6_other_network", tmp_path)
    assert len(runs) == 6 and all(float(run["inside"]) == 1 for run in runs)
    _, record = results.load(tmp_path / "underwater" / "seed0")
    assert record["subject"] == "scenes" and verify.main(tmp_path / "underwater" / "seed0") == 0


def test_joint_and_fast_start_alike(tmp_path):
    runs, _, _ = experiment("fig9_approximation", tmp_path)
    rows = {(run["row"], run["seed"]): run for run in runs}
    for seed in "01":
        assert rows["joint", seed]["samples"] == rows["fast", seed]["samples"] == "20"
        assert float(rows["fast", seed]["seed_steps"]) < float(rows["full", seed]["seed_steps"])


def test_units_of_both_kinds_are_reached(tmp_path):
    rows, said = run_quick("reach", tmp_path, "--num_seeds=4")
    assert [row["layer"] for row in rows] == ["fc8", "fc8", "conv5", "conv5"]
    for row in rows:
        assert row["inside"] == row["seeds"] == "4" and row["nearest"] == ""
        assert float(row["low"]) < float(row["high"]) and 0 <= int(row["steps"]) <= 400
    assert "fc8: 2 of 2 units" in said and "conv5: 2 of 2 units" in said


@pytest.mark.parametrize("name", ["fig1_levels", "table1_diversity", "extra_coverage"])
def test_missing_weights_end_in_two_lines(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("INVERSE_SET_HOME", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        said_by(name, tmp_path, "--model=caffenet")
    assert ended.value.code == 4 and "weights are missing" in capsys.readouterr().err
