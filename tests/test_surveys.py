"""Experiments that hold samples against rivals and photographs, in their quick form."""

import numpy as np
import pytest
from PIL import Image

from experiments import every_unit, rival
from inverse_set import results
from inverse_set.commands import verify
from inverse_set.models import zoo
from tests.quick import experiment, lines, run_quick, said_by


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


def test_coverage_needs_pictures_and_grows_with_the_sample(tmp_path, pytestconfig):
    with pytest.raises(SystemExit, match="--data=DIR"):
        experiment("extra_coverage", tmp_path)
    data = pytestconfig.getoption("data")
    if not data:
        pytest.skip("give --data=DIR to hold samples against real pictures")
    runs, _, _ = experiment("extra_coverage", tmp_path, f"--data={data}")
    rows = {(run["row"], run["seed"]): float(run["coverage"]) for run in runs}
    assert all(0 <= value <= 1 for value in rows.values())
    for run in runs:
        direct = rows[f"direct_{run['row'].split('_')[1]}", run["seed"]]
        assert abs(float(run["over_direct"]) - float(run["coverage"]) + direct) < 2e-6
    for seed in "01":
        assert rows["real_20", seed] > rows["direct_20", seed] >= rows["direct_10", seed] - 0.05


def test_every_unit_is_held_against_pictures(tmp_path, pytestconfig):
    with pytest.raises(SystemExit, match="--data=DIR"):
        said_by("every_unit", tmp_path)
    data = pytestconfig.getoption("data")
    if not data:
        pytest.skip("give --data=DIR to hold samples against real pictures")
    said = said_by("every_unit", tmp_path, f"--data={data}")
    rows = {
        row["row"]: {k: float(row[k]) for k in row if k != "row"}
        for row in lines(tmp_path / "runs.csv")
    }
    labels = zoo.load("mini").encoder.labels
    assert set(rows) == {labels[i].split(",")[0] for i in every_unit.chosen(len(labels))[:2]}
    shares = [row["ratio_real"] for row in rows.values()]
    assert shares == sorted(shares) and f"median {np.median(shares):.3g}" in said
    for row in rows.values():
        assert row["pictures"] > 20 and 0.8 < row["ratio_real"] < 2
        assert row["inside"] == 1 and row["samples"] == 20
        assert row["agreement1"] > 10 / len(labels) and row["nearest"] > 5
    farther = sum(row["nearest"] > row["nearest_ppgn"] for row in rows.values())
    assert f"nearest neighbour farther: {farther} of 2 units" in said
    assert "all of these: " in said
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
