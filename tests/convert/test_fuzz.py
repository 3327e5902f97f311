"""Damaged weight files: a few hundred a format here, thousands with tests.convert.mutate."""

import pytest

from inverse_set.errors import WeightError
from tests.convert import mutate

CASES = 300


def needing_torch(name):
    return pytest.param(name, marks=pytest.mark.slow) if name.startswith("torch") else name


@pytest.mark.parametrize("name", [needing_torch(name) for name in mutate.FORMATS])
def test_damaged_files_are_read_or_refused(name, tmp_path):
    report, failures = mutate.run(name, CASES, seed=1, keep=tmp_path)
    assert not failures, failures
    assert any(line.startswith("refused: ") for line in report), report


def fails_with(error):
    def read(path):
        if path.read_bytes() != b"valid":
            raise error("on purpose")

    return read


def make(folder):
    path = folder / "some.file"
    path.write_bytes(b"valid")
    return path


def test_another_exception_is_a_failure_and_keeps_the_file(monkeypatch, tmp_path):
    monkeypatch.setitem(mutate.FORMATS, "toy", (make, fails_with(ValueError)))
    _, failures = mutate.run("toy", 20, keep=tmp_path)
    kept = list(tmp_path.iterdir())
    assert failures and len(kept) == len(failures)
    assert "ValueError" in failures[0] and str(tmp_path) in failures[0]


def test_a_refusal_is_none(monkeypatch, tmp_path):
    refuse = fails_with(lambda wrong: WeightError("some.file", wrong))
    monkeypatch.setitem(mutate.FORMATS, "toy", (make, refuse))
    report, failures = mutate.run("toy", 20, keep=tmp_path)
    assert not failures and report[0].startswith("refused: ")


def test_a_slow_case_and_a_hungry_one_are_failures(monkeypatch, tmp_path):
    monkeypatch.setitem(mutate.FORMATS, "toy", (make, lambda path: None))
    monkeypatch.setattr(mutate, "MAX_SECONDS", -1)
    _, failures = mutate.run("toy", 1, keep=tmp_path)
    assert "read after" in failures[0]
    monkeypatch.setattr(mutate, "MAX_SECONDS", 2)
    monkeypatch.setattr(mutate, "MAX_GROWTH", -(1 << 20))
    _, failures = mutate.run("toy", 1, keep=tmp_path)
    assert "grown by" in failures[0]


def test_a_case_that_never_ends_is_ended(monkeypatch, tmp_path):
    def read(path):
        forever = path.read_bytes() != b"valid"
        while forever:
            pass

    monkeypatch.setitem(mutate.FORMATS, "toy", (make, read))
    monkeypatch.setattr(mutate, "STUCK_SECONDS", 0.05)
    _, failures = mutate.run("toy", 1, keep=tmp_path)
    assert "Stuck" in failures[0]
