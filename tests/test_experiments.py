"""Experiments in their quick form: what they write, and that every sample lies inside."""

import csv
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from experiments import every_unit, panels, rival
from inverse_set import results
from inverse_set.commands import verify
from inverse_set.models import zoo

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


def test_ours_against_ppgn(tmp_path):
    """Rows of both forms, at the same n where they say so; real pictures only with --data."""
    runs, numbers, _ = experiment("table1_diversity", tmp_path)
    rows = {(run["row"].removeprefix("bell_pepper_"), run["seed"]): run for run in runs}
    mine = {"ours", "likely", "direct", "ours_matched", "likely_matched"}
    assert {row for row, _ in rows} == mine | {"ppgn", "ppgn_matched"}
    for seed in "01":
        ours, rival = rows["ours", seed], rows["ppgn", seed]
        assert float(ours["inside"]) == 1 and float(rows["ppgn_matched", seed]["inside"]) == 1
        assert float(rival["inside"]) < 0.5  # no interval is aimed at
        assert ours["samples"] == rival["samples"] == "20"
        assert rows["ours_matched", seed]["samples"] == rows["ppgn_matched", seed]["samples"]
        assert float(ours["agreement5"]) > 0.4 and ours["kernel"] == "nan"
        likely = rows["likely", seed]
        assert float(likely["inside"]) == 1 and likely["samples"] == "20"
        assert float(likely["agreement5"]) > 0.4
        assert float(ours["nearest"]) > 1.2 * float(rows["direct", seed]["nearest"])
    alone = "fc8/bell pepper:p99:p99.9"
    asked = {line["row"].removeprefix("bell_pepper_"): line["constraints"] for line in numbers}
    assert asked["likely"].startswith(f"{alone} and prob/bell pepper:0.") and asked["ours"] == alone
    samples, _ = results.load(tmp_path / "bell_pepper_ours" / "seed0")
    assert len(samples.images) == 20 and verify.main(tmp_path / "bell_pepper_ours" / "seed0") == 0


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


def test_coverage_needs_pictures_and_grows_with_the_sample(tmp_path, pytestconfig):
    command = [sys.executable, "-m", "experiments.extra_coverage", "--quick", f"--out={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "--data=DIR" in done.stderr
    assert "Traceback" not in done.stderr
    data = pytestconfig.getoption("data")
    if not data:
        pytest.skip("give --data=DIR to hold samples against real pictures")
    command.append(f"--data={data}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-2000:]
    with open(tmp_path / "runs.csv", newline="") as file:
        rows = {(run["row"], run["seed"]): float(run["coverage"]) for run in csv.DictReader(file)}
    assert all(0 <= value <= 1 for value in rows.values())
    for seed in "01":
        assert rows["real_20", seed] > rows["direct_20", seed] >= rows["direct_10", seed] - 0.05


def run_quick(name, folder, *more):
    """The rows of the table it writes, and what it prints."""
    command = [sys.executable, "-m", f"experiments.{name}", "--quick", f"--out={folder}", *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-2000:]
    (table,) = folder.glob("*.csv")
    with open(table, newline="") as file:
        return list(csv.DictReader(file)), done.stdout


def test_units_of_both_kinds_are_reached(tmp_path):
    rows, said = run_quick("reach", tmp_path, "--num_seeds=4")
    assert [row["layer"] for row in rows] == ["fc8", "fc8", "conv5", "conv5"]
    for row in rows:
        assert row["inside"] == row["seeds"] == "4" and row["nearest"] == ""
        assert float(row["low"]) < float(row["high"]) and 0 <= int(row["steps"]) <= 400
    assert "fc8: 2 of 2 units" in said and "conv5: 2 of 2 units" in said


def test_every_unit_is_held_against_pictures(tmp_path, pytestconfig):
    command = [sys.executable, "-m", "experiments.every_unit", "--quick", f"--out={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "--data=DIR" in done.stderr
    data = pytestconfig.getoption("data")
    if not data:
        pytest.skip("give --data=DIR to hold samples against real pictures")
    done = subprocess.run([*command, f"--data={data}"], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-2000:]
    with open(tmp_path / "runs.csv", newline="") as file:
        rows = {
            row["row"]: {k: float(row[k]) for k in row if k != "row"}
            for row in csv.DictReader(file)
        }
    labels = zoo.load("mini").encoder.labels
    assert set(rows) == {labels[i].split(",")[0] for i in every_unit.chosen(len(labels))[:2]}
    shares = [row["ratio_real"] for row in rows.values()]
    assert shares == sorted(shares) and f"median {np.median(shares):.3g}" in done.stdout
    for row in rows.values():
        assert row["pictures"] > 20 and 0.8 < row["ratio_real"] < 2
        assert row["inside"] == 1 and row["samples"] == 40
        assert row["agreement1"] > 10 / len(labels) and row["nearest"] > 5
    farther = sum(row["nearest"] > row["nearest_ppgn"] for row in rows.values())
    assert f"nearest neighbour farther: {farther} of 2 units" in done.stdout
    assert "all of these: " in done.stdout
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.width > 1280 and figure.height > 2 * 128


def test_a_probability_where_the_rivals_samples_lie():
    """The mean of the interval is theirs, the upper end their 0.9 quantile."""
    shares = np.array([0.2, 0.5, 0.6, 0.7, 0.8])
    columns = np.zeros((5, 2)), np.zeros((5, 3)), np.zeros((5, 3))
    activations = np.stack([np.full(5, 9.0), shares], 1)
    pictures = rival.Pictures(*columns, activations, np.arange(5), 1.0, 1.0)
    high = 0.7 + 0.6 * 0.1  # between the fourth and the fifth
    alone, text = rival.likely("fc8/bell pepper:p99:p99.9", pictures)
    assert alone == "fc8/bell pepper:p99:p99.9"
    assert text == f"prob/bell pepper:{2 * 0.56 - high:.3f}:{high:.3f}"
    sure = pictures._replace(activations=np.ones((5, 2)))
    assert rival.likely("fc8/3:50:60", sure)[1] == "prob/3:0.980:1.000"
    none = rival.rows_of(pictures, np.zeros(0, int))
    assert rival.likely("fc8/3:50:60", none)[1] == "prob/3:0.000:1.000"


def test_the_quality_of_the_model_is_measured(tmp_path, pytestconfig):
    """The figures of the model card come again; reconstructions are like pictures."""
    data = pytestconfig.getoption("data")
    if not data:
        pytest.skip("give --data=DIR to measure reconstructions")
    rows, _ = run_quick("quality", tmp_path, f"--data={data}")
    numbers = {(row["pictures"], row["number"]): float(row["value"]) for row in rows}
    card = zoo.load("mini").record  # of five times the pictures
    assert abs(numbers["real", "top1"] - card["top1"]) < 0.06
    assert abs(numbers["reconstructed", "top1"] - card["agreement"]) < 0.06
    assert abs(numbers["reconstructed", "pixels"] - card["relative_error"]) < 0.03
    assert abs(numbers["reconstructed", "kept"] - card["own_agreement"]) < 0.06
    assert abs(numbers["real", "kernel"]) < 0.05 < numbers["direct", "kernel"]
    assert numbers["refine", "named5"] > 0.4 and numbers["real", "named5"] > 0.4
    with Image.open(tmp_path / "refine.png") as figure:
        assert figure.width > 1000


@pytest.mark.parametrize("name", ["fig1_levels", "table1_diversity", "extra_coverage"])
def test_missing_weights_end_in_two_lines(name, tmp_path, monkeypatch):
    monkeypatch.setenv("INVERSE_SET_HOME", str(tmp_path))
    command = [sys.executable, "-m", f"experiments.{name}", "--model=caffenet", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 4 and "weights are missing" in done.stderr
    assert "Traceback" not in done.stderr
