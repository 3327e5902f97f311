"""docs/results.md: every verdict follows from the tables, and the document from both."""

import csv
import os
import pathlib
import re
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from experiments import claims, common, paper
from inverse_set import metrics, results
from inverse_set.metrics import Interval
from inverse_set.types import Constraint


def table(**rows):
    """{row: {number: Interval}} from row={number: (mean, half)}."""
    return {
        row: {n: Interval(m, m - h, m + h) for n, (m, h) in numbers.items()}
        for row, numbers in rows.items()
    }


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ((3, 1), (1, 0.5), claims.AGREE),
        ((1, 0.5), (3, 1), claims.DISAGREE),
        ((2, 0.9), (1, 0.4), claims.AGREE),  # half of the difference's interval: 0.985
        ((2, 0.9), (1, 0.5), claims.UNKNOWN),  # 1.03
        ((1, 0), (1, 0), claims.DISAGREE),
        ((1, 1), (1, 1), claims.UNKNOWN),
        ((2, np.nan), (1, 0.1), claims.UNKNOWN),
        ((np.nan, 0), (1, 1), claims.UNKNOWN),
    ],
)
def test_more_needs_a_difference_that_is_positive_throughout_its_interval(a, b, verdict):
    found = claims.more(table(x={"d": a}, y={"d": b}), "d", "x", "y", "what")
    assert found.verdict == verdict and found.says.startswith("what: ")
    assert claims.more({}, "d", "x", "y", "what").verdict == claims.UNKNOWN


@pytest.mark.parametrize(
    ("a", "b", "sign", "verdict"),
    [
        ((31.7, 1.5), (31.5, 1.6), 1, claims.UNKNOWN),  # a mean that is higher by chance
        ((31.7, 1.5), (31.5, 1.6), -1, claims.UNKNOWN),
        ((1, 0), (1, 0), 1, claims.AGREE),
        ((1, 0), (1, 0), -1, claims.AGREE),
        ((0.9, 0.2), (1, 0), 1, claims.UNKNOWN),
        ((0.5, 0.2), (1, 0), 1, claims.DISAGREE),
        ((0.5, 0.2), (1, 0), -1, claims.AGREE),
        ((2, 0.2), (1, 0), -1, claims.DISAGREE),
        ((2, 0.2), (1, 0), 1, claims.AGREE),
    ],
)
def test_no_less_agrees_only_where_the_interval_leaves_no_less(a, b, sign, verdict):
    found = claims.no_less(table(x={"d": a}, y={"d": b}), "d", "x", "y", "what", sign)
    assert found.verdict == verdict


def test_the_interval_of_a_difference_is_no_narrower_than_welchs():
    rng = np.random.default_rng(0)
    for spread in (1, 0.1, 4):
        a, b = rng.normal(1, 1, 5), rng.normal(0, spread, 5)
        gap = claims.difference(metrics.interval(a), metrics.interval(b))
        welch = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
        assert gap.low <= welch.low and gap.high >= welch.high
        assert gap.high - gap.low < 1.4 * (welch.high - welch.low)


def test_inside_means_every_sample_that_was_asked_for():
    """What the certificate turned down counts, and so does what was not found."""
    whole = {"inside": (1, 0), "found": (1, 0)}
    assert claims.all_inside(table(x=whole)).verdict == claims.AGREE
    for number, short in (("inside", 0.998), ("found", 0.7)):
        found = claims.all_inside(table(x=whole, y=whole | {number: (short, 0)}))
        assert found.verdict == claims.DISAGREE and str(short) in found.says
    assert claims.all_inside({}).verdict == claims.UNKNOWN
    assert claims.all_inside(table(x={"inside": (1, 0)})).verdict == claims.UNKNOWN


@pytest.mark.parametrize(
    ("kept", "dropped", "inside"), [(9, 1, 0.9), (10, 0, 1.0), (0, 3, 0.0), (0, 0, 0.0)]
)
def test_what_the_certificate_turned_down_is_counted(kept, dropped, inside):
    """Of ten samples asked for: a run of so many kept, all inside, and so many turned down."""
    rows = np.arange(kept)
    samples = results.SampleSet(
        np.zeros((kept, 2, 2, 3), np.uint8),
        *(np.random.default_rng(0).normal(size=(4, kept, 2)) * [[[1]], [[0]], [[1]], [[1]]]),
        rows,
        rows,
    )
    result = types.SimpleNamespace(seed_steps=1, sample_steps=1)
    found = types.SimpleNamespace(
        samples=samples,
        constraints=[Constraint("a", -1, 1)] * 2,
        dropped=dropped,
        result=result,
    )
    numbers = common.measure(found, 1.0, 10)
    assert (numbers["inside"], numbers["found"]) == (inside, kept / 10)


def test_what_was_measured_once_stands_for_itself():
    """Real pictures have one figure and no interval; ours of one run decide nothing."""
    once = {"agreement1": (0.9, np.nan)}
    for mean, verdict in ((0.8, claims.DISAGREE), (0.95, claims.AGREE), (0.88, claims.UNKNOWN)):
        rows = table(ours={"agreement1": (mean, 0.03)}, real=once)
        assert claims.no_less(rows, "agreement1", "ours", "real", "").verdict == verdict
    rows = table(ours={"agreement1": (0.99, np.nan)}, real=once)
    assert claims.no_less(rows, "agreement1", "ours", "real", "").verdict == claims.UNKNOWN


def test_what_has_too_few_samples_is_said():
    rows = table(eq14={"samples": (1.8, 1)}, eq6={"samples": (500, 0), "largest_code": (12, 1)})
    found = claims.more(rows, "largest_code", "eq14", "eq6", "largest")
    assert found.verdict == claims.UNKNOWN and "1.8 ± 1 and 500 ± 0 samples" in found.says


def test_the_ratio_with_ppgn_decides():
    def verdicts(rows):
        found = claims.diversity(table(**rows))
        return [f.verdict for f in found if "monarch, ours: dist" in f.says]

    rows = {"monarch_ours": {"distance": (15, 1)}, "monarch_ppgn": {"distance": (10, 1)}}
    assert verdicts(rows) == [claims.AGREE]
    rows["monarch_ours"]["distance"] = (13.5, 1)  # of 13 and 1.6 either way
    assert verdicts(rows) == [claims.UNKNOWN]
    rows["monarch_ours"]["distance"] = (11, 1)
    assert verdicts(rows) == [claims.DISAGREE]


def test_units_are_counted_and_those_that_fail_named():
    """What PPGN has is asked; or, in the last lines, what real pictures have where that is less."""
    good = {
        "inside": 1,
        "found": 1,
        "ratio": 1.4,
        "ratio_real": 1.2,
        "nearest": 12,
        "nearest_ppgn": 11,
    }
    good |= {"vendi": 5, "vendi_ppgn": 4, "kernel": 0.1, "kernel_ppgn": 0.1}
    good |= {"agreement1": 0.9, "agreement1_ppgn": 0.9, "agreement1_real": 0.8}
    units = {"a": good, "b": good | {"ratio": 1.25}, "c": good | {"agreement1": 0.85}}
    units["d"] = good | {"kernel": float("nan")}
    found = claims.every_unit(
        {
            unit: {n: Interval(x, np.nan, np.nan) for n, x in row.items()}
            for unit, row in units.items()
        }
    )
    counts = [re.search(r": (\d) of 4 units(.*)", f.says).groups() for f in found[1:-1]]
    assert [count for count, _ in counts] == ["3", "4", "4", "3", "3", "1", "4", "4", "3"]
    assert counts[0][1] == " (not in b)" and counts[5][1] == ""  # most of them: none are named
    verdicts = [finding.verdict for finding in found]
    assert verdicts[0] == claims.AGREE == verdicts[2] and verdicts[1] == claims.DISAGREE
    assert found[-1].verdict == claims.UNKNOWN and ": -0.0125 ± 0.04" in found[-1].says


@pytest.mark.parametrize(
    ("distance", "seconds", "verdict"),
    [(9.1, 1, claims.AGREE), (8.0, 1, claims.DISAGREE), (9.5, 99, claims.DISAGREE)],
)
def test_the_approximation_keeps_distance_at_less_cost(distance, seconds, verdict):
    joint = {"distance": (10, 0), "steps": (300, 0), "seconds": (50, 0), "samples": (40, 0)}
    fast = {"distance": (distance, 0), "steps": (30, 0), "seconds": (seconds, 0)}
    (found,) = claims.approximation(table(joint=joint, fast=fast))
    assert found.verdict == verdict and found.says.endswith("300 ± 0 of 40")


def test_coverage_is_compared_at_the_same_pictures():
    """The verdict is of the differences, at the largest size of each way."""
    gains = {"refine_50": (0.3, 0.1), "refine_100": (0.2, 0.1), "accumulate_100": (-0.01, 0.02)}
    rows = {row: {"coverage": (0.7, 0.2), "over_direct": gain} for row, gain in gains.items()}
    rows |= {"joint_50": {"coverage": (0.3, 0.2), "over_direct": (-0.2, 0.1)}}
    found = claims.coverage(table(direct_100={"coverage": (0.5, 0.2)}, **rows))
    assert [f.verdict for f in found] == [claims.AGREE, claims.UNKNOWN, claims.DISAGREE]
    assert "by 100 of the refining walk" in found[0].says and "0.2 ± 0.1" in found[0].says
    assert {f.verdict for f in claims.coverage({})} == {claims.UNKNOWN}


def test_beyond_is_a_finding_only_if_it_is_not_by_chance():
    for share, verdict in (
        ((0.2, 0.1), claims.DISAGREE),
        ((0.0, 0.0), claims.AGREE),
        ((0.1, 0.2), claims.UNKNOWN),
    ):
        found = claims.one_sided(table(x_paper={"beyond": share}, x_two_sided={"beyond": (0, 0)}))
        assert [f.verdict for f in found] == [verdict]


@pytest.mark.parametrize("claim", claims.CLAIMS, ids=lambda claim: claim.key)
def test_no_claim_breaks_on_an_empty_table(claim):
    assert all(finding.verdict == claims.UNKNOWN for finding in claim.judge({}))
    path = pathlib.Path(paper.__file__).parent / f"{claim.module}.py"
    assert path.exists()


def folder(place, distances):
    place.mkdir(parents=True)
    with open(place / "numbers.csv", "w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["row", "constraints", "number", "mean", "low", "high", "seeds"])
        for row, mean in distances.items():
            lines.writerow([row, "fc8/0:0:1", "distance", mean, mean - 1, mean + 1, 5])
            lines.writerow([row, "fc8/0:0:1", "vendi", "nan", "nan", "nan", 5])
    Image.new("RGB", (3200, 200), "red").save(place / "figure.png")


def test_the_document_says_what_the_tables_say(tmp_path):
    folder(tmp_path / "runs" / "fig8", {"eq15": 7, "eq6": 7.5, "eq6_on": 20})
    path = tmp_path / "docs" / "results.md"
    paper.write(tmp_path / "runs", path)
    said = path.read_text()
    assert all(claim.title in said for claim in claims.CLAIMS)
    part = said.split("## Fig. 8")[1].split("\n## ")[0]
    assert "**undecided**: distance, eq. 6 stopped when inside, eq. 15: 7.5 ± 1" in part
    assert "**agree**: distance, eq. 6 carried on, eq. 15: 20 ± 1 against 7 ± 1" in part
    assert "| eq6 on | 20 ± 1 |" in part and "vendi" not in part and "5 seeds" in part
    assert said.count("not run") == len(claims.CLAIMS) - 1
    with Image.open(path.parent / "results" / "fig8.jpg") as figure:
        assert figure.width == paper.WIDEST
    assert "](results/fig8.jpg)" in part


def test_what_was_not_run_here_stays_as_it_was(tmp_path):
    path = tmp_path / "results.md"
    folder(tmp_path / "a" / "fig8", {"eq15": 7, "eq6": 7.5, "eq6_on": 20})
    folder(tmp_path / "a" / "c0", {"x_replace": 1})
    paper.write(tmp_path / "a", path)
    first = path.read_text()
    folder(tmp_path / "b" / "fig8", {"eq15": 7, "eq6": 7.5, "eq6_on": 2})
    paper.write(tmp_path / "b", path)
    second = path.read_text()
    assert "by their own commands: 1 more" in second and "by their own" not in first
    for title in ("C0", "Fig. 1", "Coverage"):
        parts = [text.split(f"\n## {title}")[1].split("\n## ")[0] for text in (first, second)]
        assert parts[0] == parts[1]
    assert "| x replace | 1 ± 1 |" in second
    assert "| eq6 on | 20 ± 1 |" in first and "| eq6 on | 2 ± 1 |" in second
    paper.write(tmp_path / "b", path)
    assert path.read_text() == second
    paper.write(tmp_path / "b", path, failed=["c0"])
    assert "it failed" in path.read_text()


def test_a_changed_table_changes_the_verdict(tmp_path):
    path, said = tmp_path / "results.md", []
    for number, eq6_on in enumerate((20, 7.5, 2)):
        folder(tmp_path / str(number) / "fig8", {"eq15": 7, "eq6": 7.5, "eq6_on": eq6_on})
        paper.write(tmp_path / str(number), path)
        said += re.findall(r"\*\*(.+)\*\*: distance, eq. 6 carried on", path.read_text())
    assert said == [claims.AGREE, claims.UNKNOWN, claims.DISAGREE]


def test_every_link_of_the_document_leads_to_a_small_picture(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (800, 1700, 3), np.uint8)
    for claim in claims.CLAIMS:
        folder(tmp_path / "runs" / claim.key, {"x": 1})
    Image.fromarray(noise).save(tmp_path / "runs" / "fig4" / "figure.png")
    path = tmp_path / "docs" / "results.md"
    paper.write(tmp_path / "runs", path)
    links = re.findall(r"!\[.+\]\((.+)\)", path.read_text())
    assert links == [f"results/{claim.key}.jpg" for claim in claims.CLAIMS]
    for link in links:
        assert (path.parent / link).stat().st_size <= paper.LARGEST
        with Image.open(path.parent / link) as figure:
            assert figure.width <= paper.WIDEST


def test_numbers_are_kept_only_if_they_are_of_such_a_run(tmp_path):
    claim = next(claim for claim in claims.CLAIMS if claim.key == "fig8")
    place = tmp_path / "fig8"
    assert not paper.done(claim, place, 5, False)
    folder(place, {"eq15": 7})
    assert paper.done(claim, place, 5, False)
    assert not paper.done(claim, place, 3, False) and not paper.done(claim, place, 5, True)
    (place / "paper.json").write_text('{"quick": true, "minutes": 7.2, "machine": "2 cores"}')
    assert not paper.done(claim, place, 5, False)
    assert "A quick run" in "\n".join(paper.section(claim, place, tmp_path))
    assert "7 min on 2 cores" in paper.opening([place], "this")[-2]
    os.utime(place / "paper.json", (0, 0))  # the numbers are newer than the note
    assert paper.done(claim, place, 5, False) and paper.noted(place) == {}
    os.utime(place / "numbers.csv", (0, 0))  # the script is newer than the numbers
    assert not paper.done(claim, place, 5, False)


def test_a_module_that_is_not_there_is_a_failure(tmp_path):
    claim = claims.CLAIMS[0]._replace(module="no_such_module")
    assert not paper.run(claim, tmp_path / "x", None, 2, True)
    assert "it failed" in "\n".join(paper.section(claim, tmp_path / "x", tmp_path, failed=True))
    folder(tmp_path / "y", {"x": 1})
    assert "last run failed" in "\n".join(paper.section(claim, tmp_path / "y", tmp_path, True))


def test_an_experiment_that_fails_is_told_and_the_rest_is_written(tmp_path):
    """Coverage fails at once without pictures."""
    command = [sys.executable, "-m", "experiments.paper", "--quick", "--only=coverage"]
    command += [f"--out={tmp_path / 'runs'}", f"--results={tmp_path / 'results.md'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "failed: coverage" in done.stderr
    said = (tmp_path / "results.md").read_text()
    assert "## Fig. 1" in said and said.count("it failed") == 1 and "--only=coverage`" in said
    done = subprocess.run([*command, "--only=fig99"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "no experiment is called fig99" in done.stderr
