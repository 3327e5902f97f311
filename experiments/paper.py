"""Every experiment on the bundled model, and docs/results.md from what they measured.

    python -m experiments.paper --data=DIR
    python -m experiments.paper --data=DIR --only=fig1,fig9 --again

An experiment whose numbers.csv is there already is not run again, so a run that was stopped goes
on.  Ends with status 1 if one of them failed; the others are written all the same.
"""

import csv
import pathlib
import subprocess
import sys
import time

from absl import app, flags
from PIL import Image

from experiments import claims
from inverse_set import metrics

FLAGS = flags.FLAGS
flags.DEFINE_string("data", None, "folder of Tiny ImageNet; without it what needs it is left out")
flags.DEFINE_string("out", "runs/paper", "folder of the experiments' folders")
flags.DEFINE_string("results", "docs/results.md", "file to write; its pictures lie beside it")
flags.DEFINE_list("only", [], "keys of the experiments to run; default all")
flags.DEFINE_boolean("again", False, "run also what has been run")
flags.DEFINE_boolean("quick", False, "a quick run of each: does it run, not what does it find")
flags.DEFINE_integer("seeds", 5, "repetitions", lower_bound=2)
WIDEST = 1600  # pixels of a picture in the document


def command(claim, data, seeds, out, quick=False):
    """The experiment's command, as a list."""
    words = [sys.executable, "-m", f"experiments.{claim.module}", f"--seeds={seeds}"]
    words += [f"--data={data}"] if claim.needs_data and data else []
    return [*words, f"--out={out}", *(["--quick"] if quick else [])]


def run(claim, folder):
    """Runs one experiment; its exit status."""
    print(f"== {claim.title}", flush=True)
    began = time.monotonic()
    words = command(claim, FLAGS.data, FLAGS.seeds, folder, FLAGS.quick)
    status = subprocess.run(words, check=False).returncode
    if not status:
        minutes = (time.monotonic() - began) / 60
        (folder / "minutes.txt").write_text(f"{minutes:.2f}\n")
    return status


def read(path):
    """{row: {number: `Interval`}} and the number of seeds, from a numbers.csv."""
    table, seeds = {}, 0
    with open(path, newline="") as file:
        for line in csv.DictReader(file):
            ends = (float(line[end]) for end in ("mean", "low", "high"))
            table.setdefault(line["row"], {})[line["number"]] = metrics.Interval(*ends)
            seeds = max(seeds, int(line["seeds"]))
    return table, seeds


def shrink(source, target):
    """A figure small enough for a document."""
    with Image.open(source, formats=("PNG",)) as figure:
        figure = figure.convert("RGB")
        if figure.width > WIDEST:
            size = WIDEST, round(figure.height * WIDEST / figure.width)
            figure = figure.resize(size, Image.Resampling.LANCZOS)
        figure.save(target, "JPEG", quality=85)


def section(claim, folder, pictures):
    """The lines of one experiment, from its folder."""
    lines = [f"## {claim.title}", "", f"Claim: {claim.says}", ""]
    lines += [f"`{' '.join(['python', *command(claim, 'DIR', 5, 'DIR')[1:4]])}`"]
    lines[-1] = lines[-1][:-1] + (" --data=DIR`" if claim.needs_data else "`")
    if not (folder / "numbers.csv").exists():
        return [*lines, "", f"**{claims.UNKNOWN}**: not run.", ""]
    table, seeds = read(folder / "numbers.csv")
    timed = folder / "minutes.txt"
    took = f", {float(timed.read_text()):.0f} minutes" if timed.exists() else ""
    lines += ["", f"{seeds} seeds{took}. Means ± half of a 95 % interval.", ""]
    lines += [f"- **{finding.verdict}**: {finding.says}" for finding in claim.judge(table)]
    shown = [n for n in claim.shown if any(claims.cell(table, row, n) for row in table)]
    lines += ["", f"| | {' | '.join(n.replace('_', ' ') for n in shown)} |"]
    lines += ["|---" * (len(shown) + 1) + "|"]
    for row in table:
        cells = [claims.cell(table, row, number) for number in shown]
        texts = [claims.text(found) if found else "" for found in cells]
        lines.append(f"| {row.replace('_', ' ')} | {' | '.join(texts)} |")
    if (folder / "figure.png").exists():
        pictures.mkdir(parents=True, exist_ok=True)
        shrink(folder / "figure.png", pictures / f"{claim.key}.jpg")
        lines += ["", f"![{claim.title}]({pictures.name}/{claim.key}.jpg)"]
    return [*lines, ""]


def write(out, path):
    """The document, from the experiments' folders below `out`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        "# What the paper claims, and what we measured",
        "",
        "Written by `make paper` on the bundled model; every number and verdict is computed from",
        "the experiments' tables, and `make paper` computes them again. A verdict is *agree* or",
        "*disagree* only where intervals over the seeds are apart, or where it says how much is",
        "asked. Distances are between encodings E(G(c)). What pictures show is for the eye.",
        "The model is small (32x32 pixels, 40 classes): none of this speaks for CaffeNet.",
        "",
    ]
    for claim in claims.CLAIMS:
        lines += section(claim, out / claim.key, path.with_suffix(""))
    path.write_text("\n".join(lines))


def main(_):
    out, failed = pathlib.Path(FLAGS.out), []
    keys = [claim.key for claim in claims.CLAIMS]
    if unknown := sorted(set(FLAGS.only) - set(keys)):
        sys.exit(f"no experiment is called {', '.join(unknown)}\n--only takes {', '.join(keys)}")
    for claim in claims.CLAIMS:
        folder = out / claim.key
        if FLAGS.only and claim.key not in FLAGS.only:
            continue
        if (folder / "numbers.csv").exists() and not FLAGS.again:
            print(f"== {claim.title}: run already")
            continue
        if run(claim, folder):
            failed.append(claim.key)
    write(out, pathlib.Path(FLAGS.results))
    print(f"written to {FLAGS.results}")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}\ntheir errors stand above")


if __name__ == "__main__":
    app.run(main)
