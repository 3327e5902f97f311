"""Table 1's comparison at every class unit, one seed each: where it holds, and how far it can go.

    python -m experiments.every_unit --data=DIR

For each unit at p99 to p99.9: the real pictures in the interval, PPGN as the paper runs it, PPGN's
samples in the interval (many short chains), and table 1's row `likely`, whose second interval is
here the unit's own: the middle 0.8 of the probabilities of PPGN's samples in the first.  `real` and
`ours` are distances over PPGN's; `real` says how much more diverse than PPGN's a sample can be that
is as natural and as diverse as pictures are.  Prints a line a unit, then in how many units each of
CONDITIONS holds, and writes every_unit.csv.
"""

import csv
import sys

import jax
import numpy as np
from absl import app, flags

from experiments import common, judge, real, rival
from experiments import table1_diversity as table1
from inverse_set import metrics
from inverse_set.models import units

FLAGS = flags.FLAGS
BUDGET = 200  # gradient steps to the seeds: where the two intervals hardly meet, some stay outside
COMPARED = ("nearest", "vendi", "kernel", "agreement1")
COLUMNS = ("unit", "name", "pictures", "samples", "inside", "low", "high", "real", "ours")
COLUMNS += tuple(number + whose for number in COMPARED for whose in ("", "_ppgn"))
CONDITIONS = {
    "distance at least 1.3 times PPGN's": lambda row: row["ours"] >= 1.3,
    "or at least as far as real pictures": lambda row: row["ours"] >= min(1.3, row["real"]),
    "nearest neighbour farther": lambda row: row["nearest"] > row["nearest_ppgn"],
    "Vendi score higher": lambda row: row["vendi"] > row["vendi_ppgn"],
    "kernel distance no larger": lambda row: row["kernel"] <= row["kernel_ppgn"],
    "second classifier agrees no less": lambda row: row["agreement1"] >= row["agreement1_ppgn"],
}


def probabilities(model, images, unit):
    """`[n]` of a class, by the encoder, of pictures uint8 `[n, H, W, 3]`."""
    network = model.encoder
    read = real.reader(network.plan, network.pixels)
    logits = read(network.weights, images / np.float32(255))[1]
    return np.asarray(jax.nn.softmax(logits)[:, unit])


def compare(model, pictures, second, unit):
    """{column: value} of one class unit."""
    natural = common.natural_distance(model)
    count, seeds = (40, 40) if FLAGS.quick else (FLAGS.num_samples, min(400, FLAGS.num_samples))
    steps, chains = (rival.STEPS // 10, 20) if FLAGS.quick else (rival.STEPS, rival.MANY)
    alone, constraint = units.parse_constraint(model, f"fc8/{unit}:p99:p99.9")
    near = real.inside(pictures, unit, constraint.low, constraint.high)
    against = rival.of(model, alone, constraint.low, constraint.high)
    ppgn = rival.chain_pictures(
        against, rival.run_chains(against, 0, rival.CHAINS, steps), rival.thinned
    )
    many = rival.chain_pictures(
        against, rival.run_chains(against, 0, chains, rival.SHORT), rival.within(against)
    )
    many = rival.at_most(many, count)
    shares = probabilities(model, many.images, unit) if len(many.images) else [0.0, 1.0]
    low, high = np.quantile(shares, [0.1, 0.9])
    likely = f"fc8/{unit}:p99:p99.9", f"prob/{unit}:{low:.3f}:{high:.3f}"
    ends = np.asarray([units.parse_constraint(model, text)[1][1:] for text in likely]).T
    ours = table1.ours(model, likely, 0, count, seeds, table1.REFINE._replace(seed_steps=BUDGET))[0]
    mine, theirs = (
        table1.measure(p, *ends[:, : p.activations.shape[1]], natural, near, unit, second)
        for p in (ours, many)
    )
    apart = metrics.mean_pair_distance(ppgn.features)
    row = {"unit": unit, "name": model.encoder.labels[unit].split(",")[0]}
    row |= {"pictures": len(near.features), "samples": len(ours.images), "inside": mine["inside"]}
    row |= {"low": low, "high": high}
    row |= {"real": metrics.mean_pair_distance(near.features) / apart}
    row |= {"ours": mine["distance"] / apart}
    for number in COMPARED:
        row |= {number: mine[number], f"{number}_ppgn": theirs[number]}
    print(
        f"{row['name']:<26}" + "".join(f"{key} {row[key]:<8.4g} " for key in COLUMNS[2:]),
        flush=True,
    )
    return row


def main(_):
    model, place = common.model(), common.folder("every_unit")
    pictures = real.load(model, FLAGS.data)
    if pictures is None:
        sys.exit("this holds the bundled model against pictures\nsay --data=DIR, Tiny ImageNet")
    classes, second = range(len(model.encoder.labels))[: 2 if FLAGS.quick else None], judge.load()
    rows = [compare(model, pictures, second, unit) for unit in classes]
    rows.sort(key=lambda row: row["real"])
    with open(place / "every_unit.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    shares = [row["real"] for row in rows]
    print(f"real: least {min(shares):.3g}, median {np.median(shares):.3g}, most {max(shares):.3g}")
    for name, holds in CONDITIONS.items():
        print(f"{name}: {sum(map(holds, rows))} of {len(rows)} units")
    every = sum(all(holds(row) for holds in CONDITIONS.values()) for row in rows)
    print(f"all of these: {every} of {len(rows)} units")


if __name__ == "__main__":
    app.run(main)
