"""Runs an experiment in its quick form."""

import csv
import subprocess
import sys

from PIL import Image


def experiment(name, out):
    """Runs one quickly; returns (lines of runs.csv, lines of numbers.csv, size of the figure)."""
    command = [sys.executable, "-m", f"experiments.{name}", "--quick", f"--out={out}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    tables = []
    for table in ("runs", "numbers"):
        with open(out / f"{table}.csv", newline="") as file:
            tables.append(list(csv.DictReader(file)))
    with Image.open(out / "figure.png") as figure:
        return *tables, figure.size


def run_quick(name, folder, *more):
    """The rows of the table it writes, and what it prints."""
    command = [sys.executable, "-m", f"experiments.{name}", "--quick", f"--out={folder}", *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    (table,) = folder.glob("*.csv")
    with open(table, newline="") as file:
        return list(csv.DictReader(file)), done.stdout
