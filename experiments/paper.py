"""Every experiment on the bundled model, and docs/results.md from what they measured.

    python -m experiments.paper --data=DIR
    python -m experiments.paper --data=DIR --only=fig1,fig9 --again

An experiment whose numbers.csv is there already, newer than its script and of as many seeds, is
not run again, so a run that was stopped goes on.  every_unit takes forty minutes more, and is run
only where --only names it.  What the document says of an experiment that has not been run here
stays as it is.  Ends with status 1 if one of them failed; the others are written all the same.
"""

import csv
import json
import os
import pathlib
import platform
import subprocess
import sys
import time

from absl import app, flags
from PIL import Image

import inverse_set
from experiments import claims
from inverse_set import metrics

FLAGS = flags.FLAGS
NOT_RUN = f"**{claims.UNKNOWN}**: not run."
WIDEST, LARGEST = 1600, 400_000  # pixels and bytes of a picture in the document


def command(claim, data, seeds, out, quick=False):
    """The experiment's command, as a list."""
    words = [sys.executable, "-m", f"experiments.{claim.module}", f"--seeds={seeds}"]
    words += [f"--data={data}"] if claim.needs_data and data else []
    return [*words, f"--out={out}", *(["--quick"] if quick else [])]


def run(claim, folder, data, seeds, quick):
    """Runs one experiment and notes beside its numbers how; whether it succeeded."""
    print(f"== {claim.title}", flush=True)
    began = time.monotonic()
    status = subprocess.run(command(claim, data, seeds, folder, quick), check=False).returncode
    if status or not (folder / "numbers.csv").exists():
        return False
    note = {
        "minutes": (time.monotonic() - began) / 60,
        "machine": f"{os.cpu_count()} {platform.machine()} cores",
        "quick": quick,
    }
    (folder / "paper.json").write_text(json.dumps(note) + "\n")
    return True


def noted(folder):
    """What `run` noted of the numbers that are there; {} where they were made by hand since."""
    numbers, note = folder / "numbers.csv", folder / "paper.json"
    if not note.exists() or note.stat().st_mtime < numbers.stat().st_mtime:
        return {}
    return json.loads(note.read_text())


def done(claim, folder, seeds, quick):
    """Are the experiment's numbers there, newer than its script, and of such a run?"""
    numbers = folder / "numbers.csv"
    script = pathlib.Path(__file__).with_name(f"{claim.module}.py")
    if not (numbers.exists() and script.exists()):
        return False
    if numbers.stat().st_mtime < script.stat().st_mtime:
        return False
    seeds = 1 if claim.apart else 2 if quick else seeds
    return read(numbers)[1] == seeds and noted(folder).get("quick", quick) == quick


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
    for widest in (WIDEST, WIDEST // 2):  # panels show samples at twice their size
        if figure.width > widest:
            size = widest, round(figure.height * widest / figure.width)
            figure = figure.resize(size, Image.Resampling.LANCZOS)
        for quality in (85, 75, 60, 45, 30):
            figure.save(target, "JPEG", quality=quality)
            if target.stat().st_size <= LARGEST:
                return


def kept(path):
    """{title: lines} of what an earlier document has measured, {} where there is none."""
    text = path.read_text() if path.exists() else ""
    sections = {}
    for part in text.split("\n## ")[1:]:
        title, *rest = part.rstrip().splitlines()
        if NOT_RUN not in part:
            sections[title] = [f"## {title}", *rest, ""]
    return sections


def section(claim, folder, pictures, failed=False):
    """The lines of one experiment, from its folder."""
    lines = [f"## {claim.title}", "", f"Claim: {claim.says}", ""]
    data = " --data=DIR" if claim.needs_data else ""
    lines += [f"`python -m experiments.{claim.module}{data}`", ""]
    numbers = folder / "numbers.csv"
    table, seeds = read(numbers) if numbers.exists() else ({}, 0)
    if not table:
        return [*lines, f"**{claims.UNKNOWN}**: it failed." if failed else NOT_RUN, ""]
    if failed:
        lines += ["**Its last run failed; what follows is of an earlier one.**", ""]
    note = noted(folder)
    took = f", {note['minutes']:.0f} min" if note else ""
    if note.get("quick"):
        lines += ["**A quick run: it shows that this runs, not what it finds.**", ""]
    plural = "s" * (seeds != 1)
    lines += [f"{seeds} seed{plural}{took}. Means ± half of a 95 % interval.", ""]
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


def opening(folders, asked, earlier=0):
    """The document's first lines: the command, and how its numbers came about.

    earlier: experiments whose sections an earlier run wrote.
    """
    ran = [folder for folder in folders if (folder / "numbers.csv").exists()]
    seeds = sorted({read(folder / "numbers.csv")[1] for folder in ran})
    notes = [note for folder in ran if (note := noted(folder))]
    model = inverse_set.load("mini")
    size = f"{model.resolution}x{model.resolution} pixels, {len(model.encoder.labels)} classes"
    lines = [
        "# What the paper claims, and what we measured",
        "",
        f"`{asked}`",
        "",
        "This wrote it, on the bundled model `mini`; every number and verdict is computed from the",
        "experiments' tables. A verdict's intervals are over the seeds; where a margin is asked",
        "instead, it says so. Distances are between encodings E(G(c)). What pictures show is for",
        f"the eye. The model is small ({size}): none of this speaks for CaffeNet.",
        "The second classifier learnt from the same pictures as the model, by the same recipe: its",
        "verdicts, and distances in its space, are not independent and say nothing on naturalness.",
        "",
        f"{len(ran)} of {len(folders)} experiments ran, seeds: {', '.join(map(str, seeds)) or 0}.",
    ]
    if notes:
        minutes, machines = sum(note["minutes"] for note in notes), {n["machine"] for n in notes}
        lines[-1] += f" {len(notes)} were timed: {minutes:.0f} min on {' or '.join(machines)}."
    if earlier:
        lines.append(f"Measured before, by their own commands: {earlier} more.")
    return [*lines, ""]


def write(out, path, failed=(), asked="python -m experiments.paper"):
    """The document, from the experiments' folders below `out`.

    failed: keys of those that did.  asked: the command that it was written by.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    before = kept(path)
    missing = {c.key for c in claims.CLAIMS if not (out / c.key / "numbers.csv").exists()}
    missing -= {c.key for c in claims.CLAIMS if c.title not in before} | set(failed)
    lines = opening([out / claim.key for claim in claims.CLAIMS], asked, len(missing))
    for claim in claims.CLAIMS:
        if claim.key in missing:
            lines += before[claim.title]
            continue
        lines += section(claim, out / claim.key, path.with_suffix(""), claim.key in failed)
    path.write_text("\n".join(lines))


def define_flags():
    """The command's; here, since tests import this module beside others that have a --data."""
    flags.DEFINE_string("data", None, "Tiny ImageNet; without it what needs it is left out")
    flags.DEFINE_string("out", "runs/paper", "folder of the experiments' folders")
    flags.DEFINE_string("results", "docs/results.md", "file to write; its pictures lie beside it")
    flags.DEFINE_list("only", [], "keys of the experiments to run; default all")
    flags.DEFINE_boolean("again", False, "run also what has been run")
    flags.DEFINE_boolean("quick", False, "a quick run of each: does it run, not what does it find")
    flags.DEFINE_integer("seeds", 5, "repetitions", lower_bound=2)


def main(_):
    out, failed = pathlib.Path(FLAGS.out), []
    keys = [claim.key for claim in claims.CLAIMS]
    if unknown := sorted(set(FLAGS.only) - set(keys)):
        sys.exit(f"no experiment is called {', '.join(unknown)}\n--only takes {', '.join(keys)}")
    for claim in claims.CLAIMS:
        folder = out / claim.key
        if claim.key not in FLAGS.only and (FLAGS.only or claim.apart):
            continue
        if not FLAGS.again and done(claim, folder, FLAGS.seeds, FLAGS.quick):
            print(f"== {claim.title}: run already")
        elif not run(claim, folder, FLAGS.data, FLAGS.seeds, FLAGS.quick):
            failed.append(claim.key)
    asked = f"python -m experiments.paper --seeds={FLAGS.seeds}"
    asked += " --data=DIR" * bool(FLAGS.data) + " --quick" * FLAGS.quick
    asked += f" --only={','.join(FLAGS.only)}" * bool(FLAGS.only) + " --again" * FLAGS.again
    write(out, pathlib.Path(FLAGS.results), failed, asked)
    print(f"written to {FLAGS.results}")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}\ntheir errors stand above")


if __name__ == "__main__":
    define_flags()
    app.run(main)
