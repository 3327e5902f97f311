"""What the experiments share: flags, sampling over seeds, the numbers, the table, the figure.

An experiment is a list of `Row`s.  Each is sampled once a seed; `run` writes below --out

    figure.png    ten samples of each row, from the first seed
    numbers.csv   one line a row and number: mean over the seeds, ends of its 95 % interval
    runs.csv      one line a row and seed: every number of that run
    ROW/seedN/    the run itself, as `inverse-set sample` writes it

Seconds are those of a whole run without saving; but for --quick, nothing compiles in them.
"""

import csv
import pathlib
import sys
import time
from typing import Any, NamedTuple

import numpy as np
from absl import flags

import inverse_set
from experiments import panels
from inverse_set import certified, metrics, report, results
from inverse_set.errors import UserError
from inverse_set.models import bind, units
from inverse_set.settings import Settings

FLAGS = flags.FLAGS
TABLE = ("samples", "inside", "distance", "nearest", "vendi", "saturated", "steps", "seconds")

flags.DEFINE_string("model", "mini", "which model: mini or caffenet")
flags.DEFINE_string("weights", None, "random:SEED for untrained networks")
flags.DEFINE_string("out", None, "folder to write; default runs/paper/NAME")
flags.DEFINE_string("data", None, "folder of Tiny ImageNet, for what is held against real pictures")
flags.DEFINE_boolean("quick", False, "2 seeds of 30 samples: does it run, not what does it find")
flags.DEFINE_integer("seeds", 5, "repetitions", lower_bound=1)
flags.DEFINE_integer("num_samples", 100, "samples a run (the paper's: 500)", lower_bound=10)
flags.DEFINE_integer("num_seeds", 10, "codes a step (K)", lower_bound=2)


class Row(NamedTuple):
    """One inverse set, sampled in one way.

    name: of its folder and in the tables.  asked: constraints as one writes them.
    title: heads its row of the figure.  settings: `Settings`.
    natural_codes: hold codes to the natural range.  num_samples: None is that of the flags.
    num_seeds: K, None is that of the flags.
    start: (model, K, seed) -> `[K, D]` codes to start from, of joint sampling as many as samples;
        None takes the model's own.
    """

    name: str
    asked: tuple
    title: str = ""
    settings: Settings = Settings()
    natural_codes: bool = True
    num_samples: int | None = None
    num_seeds: int | None = None
    start: Any = None


def chosen(paper, bundled):
    """`paper` with the full-size networks, `bundled` with the bundled ones."""
    return paper if FLAGS.model == "caffenet" else bundled


def model(subject=None):
    """The model of the flags; an error about it ends the program in two lines."""
    try:
        return inverse_set.load(FLAGS.model, subject, FLAGS.weights)
    except UserError as error:
        print(f"error: {error.what}\n{error.remedy}", file=sys.stderr)
        sys.exit(error.code)


def folder(name):
    """The folder to write."""
    path = pathlib.Path(FLAGS.out or f"runs/paper/{name}")
    path.mkdir(parents=True, exist_ok=True)
    return path


def run(name, rows, subject=None):
    """Samples every row over the seeds, writes and prints what came of it; returns the numbers.

    rows: sequence of `Row`, or model -> rows.  The result is {row's name: {number: `[seeds]`}}.
    """
    loaded, place = model(subject), folder(name)
    rows = rows(loaded) if callable(rows) else rows
    seeds = 2 if FLAGS.quick else FLAGS.seeds
    natural = natural_distance(loaded)
    print(f"{name}: {loaded.name}, {seeds} seeds; natural pictures lie {natural:.4g} apart")
    numbers, strips = {}, []
    for row in rows:
        each = []
        for seed in range(seeds):
            found, seconds = sample(loaded, row, seed)
            save(place / row.name / f"seed{seed}", loaded, row, found, seed)
            each.append(measure(found, natural, counts(row)[0]) | {"seconds": seconds})
            if not seed:
                strips.append((row, found))
        numbers[row.name] = {key: np.asarray([one[key] for one in each]) for key in each[0]}
        _print_row(row.name, numbers[row.name], header=len(numbers) == 1)
    write_tables(place, {row.name: " and ".join(row.asked) for row in rows}, numbers)
    lines = [label(row, found, numbers[row.name]["distance"]) for row, found in strips]
    images = [found.samples.images[panels.choice(found.samples.chain)] for _, found in strips]
    panels.panel(zip(lines, images, strict=True)).save(place / "figure.png")
    print(f"written to {place}")
    return numbers


def natural_distance(model):
    """Root mean squared distance of the encodings of natural pictures; 1 where it is unknown."""
    return (model.codes.feature_square or 1.0) ** 0.5


def counts(row):
    """(samples, seeds) of a row, by itself or by the flags."""
    samples = row.num_samples or (30 if FLAGS.quick else FLAGS.num_samples)
    return samples, row.num_seeds or FLAGS.num_seeds


def _program(model, row):
    """Rows that agree in this run the same compiled programs."""
    layers = tuple(units.parse_constraint(model, text)[0].layer for text in row.asked)
    return model.subject.name, layers, row.settings, row.natural_codes, counts(row)


_warm = set()  # programs that ran in this process


def sample(model, row, seed, timed=True):
    """(`certified.Found`, seconds) of one run.

    timed: run it once before where its program has not run yet (not with --quick), so that the
    seconds are of a run that compiles nothing.
    """
    if timed and not FLAGS.quick and _program(model, row) not in _warm:
        sample(model, row, seed, timed=False)
        _warm.add(_program(model, row))
    count, seeds = counts(row)
    wanted = count if row.settings.method == "joint" else seeds
    start = row.start and row.start(model, wanted, seed)
    began = time.perf_counter()
    found = certified.sample(
        model, row.asked, count, seeds, seed, row.settings, start, row.natural_codes
    )
    return found, time.perf_counter() - began


def measure(found, natural, asked):
    """Every number of one run that was asked for so many samples, {name: float}.

    Distances are in units of the encoding.
    inside is a share of all that was taken for a sample, what the certificate turned down included,
    found of what was asked for; beyond (above the interval) is what a one-sided rule let through.
    """
    samples, features = found.samples, found.samples.features
    low, high = ([getattr(c, end) for c in found.constraints] for end in ("low", "high"))
    shares, n = metrics.shares(samples.activations, low, high), len(features)
    images = samples.images
    saturated = ((images < 3) | (images > 252)).mean() if n else np.nan
    return {
        "samples": float(n),
        "found": n / asked,
        "inside": inside_of(shares.inside, n, found.dropped),
        "beyond": shares.beyond,
        "deciles": metrics.deciles_filled(samples.activations, low, high) if n else np.nan,
        "distance": metrics.mean_pair_distance(features),
        "distance_per_dimension": metrics.mean_pair_distance(features, per_dimension=True),
        "nearest": metrics.nearest_neighbour_distance(features),
        "vendi": metrics.vendi_score(features, natural),
        "largest_code": metrics.largest_entry(samples.codes)[1],
        "saturated": float(saturated),
        "seed_steps": float(found.result.seed_steps),
        "steps": float(found.result.seed_steps + found.result.sample_steps),
    }


def inside_of(share, count, dropped):
    """The share inside of `count` samples, of which `share` lie there, and of those dropped."""
    return share * count / (count + dropped) if count else 0.0


def save(folder, model, row, found, seed):
    """Writes one run's folder, in place of an earlier one."""
    record = {
        "command": sys.argv,
        "model": model.name,
        "subject": None if model.subject is model.encoder else model.subject.name,
        "untrained": model.untrained,
        "asked": list(row.asked),
        "rule": found.settings.rule,
        "settings": {k: v for k, v in found.settings._asdict().items() if k != "optimiser"},
        "seed": seed,
        "natural_codes": row.natural_codes,
        "start": row.start.__name__ if row.start else bind.default_start(model),
        "status": found.status.name.lower(),
        "seconds": found.seconds,
        "weights": model.digests,
    }
    title = f"{row.name}, seed {seed}"
    results.save(folder, found.samples, found.constraints, record, report.summary(found), title)


def _print_row(name, numbers, header):
    if header:
        print(f"{'':<28}" + "".join(f"{key:>12}" for key in TABLE))
    means = "".join(f"{metrics.interval(numbers[key]).mean:>12.4g}" for key in TABLE)
    print(f"{name:<28}{means}", flush=True)


def write_tables(folder, asked, numbers):
    """numbers.csv and runs.csv.

    asked: {row: its constraints as one text}.  numbers: {row: {number: `[seeds]`}}.
    """
    first = next(iter(numbers))
    means = [["row", "constraints", "number", "mean", "low", "high", "seeds"]]
    runs = [["row", "seed", *numbers[first]]]
    for row, columns in numbers.items():
        for key, values in columns.items():
            means.append([row, asked[row], key, *metrics.interval(values), len(values)])
        each = enumerate(zip(*columns.values(), strict=True))
        runs += [[row, seed, *values] for seed, values in each]
    write_csv(folder / "numbers.csv", means)
    write_csv(folder / "runs.csv", runs)


def write_csv(path, lines):
    """Lines of texts and numbers, the numbers to six digits."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for line in lines:
            writer.writerow([f"{x:.6g}" if isinstance(x, float) else x for x in line])


def label(row, found, distances):
    """The lines beside a row of the figure: what it is, which interval, how far samples lie."""
    mean, low, high = metrics.interval(distances)
    spread = f" ± {(high - low) / 2:.2g}" if np.isfinite(high - low) else ""
    lines = [row.title] if row.title else []
    for text, c in zip(row.asked, found.constraints, strict=True):
        ends = text.rsplit(":", 2)[1:]
        named = " to ".join(ends) if ends[0].startswith("p") else ""
        lines += [f"{c.name} {named}".strip(), f"    in [{c.low:.2f}, {c.high:.2f}]"]
    n = len(found.samples.images)
    few = f"{n} sample{'s' * (n != 1)} at the first seed"
    return [*lines, f"distance {mean:.1f}{spread}" if np.isfinite(mean) else few]
