"""The bundled model, from the command to a verified folder."""

import numpy as np
import pytest

from inverse_set import cli, report, results
from inverse_set.models import zoo

UNIT = "fc8/monarch:p99:p99.9"


def sampled(folder, *more):
    """(samples, record) of a run that ends well, and that `verify` passes."""
    flags = [f"--constraint={UNIT}", "--num_samples=24", "--num_seeds=6", f"--out={folder}"]
    assert cli.run(["sample", *flags, *more]) == 0
    assert cli.run(["verify", str(folder)]) == 0
    return results.load(folder)


def test_a_run_is_whole(tmp_path, capsys):
    samples, record = sampled(tmp_path / "run")
    assert "24 of 24 pictures lie inside" in capsys.readouterr().out
    side = zoo.load("mini").resolution
    assert samples.images.shape == (24, side, side, 3) and samples.images.dtype == np.uint8
    assert len(np.unique(samples.images.reshape(24, -1), axis=0)) == 24
    assert record["weights"] == zoo.load("mini").digests
    assert record["certificate"] == report.INDEPENDENT and record["own"] is False
    (constraint,) = record["constraints"]
    width = constraint["high"] - constraint["low"]
    assert np.abs(samples.activations - samples.raw_activations).max() < 0.1 * width


@pytest.mark.parametrize("more", [["--method=joint"], ["--rule=paper", "--step=0.01"]])
def test_other_ways_to_sample(tmp_path, more):
    few = ["--num_samples=6", "--num_seeds=3", "--seed_steps=300"]
    samples, record = sampled(tmp_path / "run", *more, *few)
    low, high = (record["constraints"][0][end] for end in ("low", "high"))
    assert len(samples.images) == 6 and (samples.activations >= low).all()
    assert (samples.activations <= high).all() or "--rule=paper" in more


def test_the_refining_walk_fills_the_interval_at_either_unit(tmp_path):
    """An intersection, by steps that leave it."""
    second = "--constraint=conv5/7@3,4:p50:p99.9"
    samples, record = sampled(tmp_path / "both", second, "--walk=refine")
    assert record["settings"]["walk"] == "refine" and record["settings"]["encodings"] == 2
    for column, constraint in zip(samples.activations.T, record["constraints"], strict=True):
        low, high = constraint["low"], constraint["high"]
        assert (np.histogram(column, 3, (low, high))[0] > 0).all()
