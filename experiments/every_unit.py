"""Table 1's comparison at every class unit, one seed each: where it holds, and how far it can go.

    python -m experiments.every_unit --data=DIR

For each unit at p99 to p99.9: the real pictures in the interval, table 1's row `likely`, PPGN as
the paper runs it, and PPGN's samples in the interval (many short chains).  `real` and `ours` are
distances over PPGN's; `real` says how much more diverse than PPGN's a sample can be that is as
natural and as diverse as pictures are.  Prints a line a unit, then in how many units each of
CONDITIONS holds, and writes every_unit.csv.
"""

import csv
import sys

import numpy as np
from absl import app, flags

from experiments import common, judge, real, table1_diversity
from inverse_set import metrics
from inverse_set.models import units

FLAGS = flags.FLAGS
BUDGET = 200  # gradient steps to the seeds: where the two intervals hardly meet, some stay outside
COMPARED = ("nearest", "vendi", "kernel", "agreement1")
COLUMNS = ("unit", "name", "pictures", "samples", "inside", "real", "ours")
COLUMNS += tuple(number + whose for number in COMPARED for whose in ("", "_ppgn"))
CONDITIONS = {
    "distance at least 1.3 times PPGN's": lambda row: row["ours"] >= 1.3,
    "or at least as far as real pictures": lambda row: row["ours"] >= min(1.3, row["real"]),
    "nearest neighbour farther": lambda row: row["nearest"] > row["nearest_ppgn"],
    "Vendi score higher": lambda row: row["vendi"] > row["vendi_ppgn"],
    "kernel distance no larger": lambda row: row["kernel"] <= row["kernel_ppgn"],
    "second classifier agrees no less": lambda row: row["agreement1"] >= row["agreement1_ppgn"],
}


def compare(model, pictures, second, unit):
    """{column: value} of one class unit."""
    t, natural = table1_diversity, common.natural_distance(model)
    count, seeds = (40, 40) if FLAGS.quick else (FLAGS.num_samples, min(400, FLAGS.num_samples))
    steps, chains = (t.STEPS // 10, 20) if FLAGS.quick else (t.STEPS, t.MANY)
    likely = t.constraints_of(f"fc8/{unit}:p99:p99.9")[1]
    asked = [units.parse_constraint(model, text) for text in likely]
    ends = np.asarray([constraint[1:] for _, constraint in asked]).T
    near = real.inside(pictures, unit, *ends[:, 0])
    against = t.rival(model, asked[0][0], *ends[:, 0])

    def within(activations):
        return t.trace.matched(activations, against.target)

    settings = t.REFINE._replace(seed_steps=BUDGET)
    ours = t.ours(model, likely, 0, count, seeds, settings)[0]
    ppgn = t.chain_pictures(against, t.run_chains(against, 0, t.CHAINS, steps), t.thinned)
    many = t.chain_pictures(against, t.run_chains(against, 0, chains, t.SHORT), within)
    many = t.rows_of(many, t.evenly(len(many.images), count))
    mine, rival = (
        t.measure(p, *ends[:, : p.activations.shape[1]], natural, near, unit, second)
        for p in (ours, many)
    )
    apart = metrics.mean_pair_distance(ppgn.features)
    row = {"unit": unit, "name": model.encoder.labels[unit].split(",")[0]}
    row |= {"pictures": len(near.features), "samples": len(ours.images), "inside": mine["inside"]}
    row |= {"real": metrics.mean_pair_distance(near.features) / apart}
    row |= {"ours": mine["distance"] / apart}
    for number in COMPARED:
        row |= {number: mine[number], f"{number}_ppgn": rival[number]}
    print(
        f"{row['name']:<26}" + "".join(f"{key} {row[key]:<8.4g}" for key in COLUMNS[2:]), flush=True
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
