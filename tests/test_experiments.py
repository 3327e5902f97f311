"""Experiments in their quick form: what they write, and that every sample lies inside."""

import csv
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from experiments import panels
from inverse_set import results
from inverse_set.commands import verify

NUMBERS = {"samples", "inside", "beyond", "distance", "distance_per_dimension", "nearest", "vendi"}
NUMBERS |= {"deciles", "largest_code", "saturated", "seed_steps", "steps", "seconds"}


def experiment(name, out):
    """Runs one quickly; returns (lines of runs.csv, lines of numbers.csv, size of the figure)."""
    command = [sys.executable, "-m", f"experiments.{name}", "--quick", f"--out={out}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    tables = []
    for table in ("runs", "numbers"):
        with open(out / f"{table}.csv", newline="") as file:
            tables.append(list(csv.DictReader(file)))
    with Image.open(out / "figure.png") as figure:
        return *tables, figure.size


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


def test_codes_that_start_as_one(tmp_path):
    runs, _, _ = experiment("fig8_same_start", tmp_path)
    assert all(float(run["inside"]) == 1 for run in runs)
    distance = {(run["row"], run["seed"]): float(run["distance"]) for run in runs}
    for seed in "01":
        assert distance["eq6_equal", seed] == 0 < distance["eq15", seed]
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
