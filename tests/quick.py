"""Runs an experiment in its quick form in the tests' own process, where compiled programs stay."""

import contextlib
import csv
import importlib
import io

from absl import flags
from absl.testing import flagsaver
from PIL import Image


def said_by(name, out, *more):
    """What an experiment prints, with --quick; SystemExit where it ends with an error."""
    module, said = importlib.import_module(f"experiments.{name}"), io.StringIO()
    with flagsaver.flagsaver(), contextlib.redirect_stdout(said):
        flags.FLAGS([name, "--quick", f"--out={out}", *more])
        module.main([])
    return said.getvalue()


def lines(path):
    """The rows of a table."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def experiment(name, out, *more):
    """Runs one quickly; returns (rows of runs.csv, rows of numbers.csv, size of the figure)."""
    said_by(name, out, *more)
    with Image.open(out / "figure.png") as figure:
        return lines(out / "runs.csv"), lines(out / "numbers.csv"), figure.size


def run_quick(name, folder, *more):
    """The rows of the table it writes, and what it prints."""
    said = said_by(name, folder, *more)
    (table,) = folder.glob("*.csv")
    return lines(table), said
