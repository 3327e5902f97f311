"""How far apart PPGN's samples of every class unit lie, and the real pictures in its interval.

    python -m experiments.every_unit --data=DIR

Ten chains of 200 steps a unit, as in table 1, and the real pictures at p99 to p99.9.  Prints a line
a unit, least ratio of the two distances first, and writes every_unit.csv.  On the bundled model it
should end with ratios from 1.0 (orange) to 1.8 (jellyfish), median 1.4: how much more diverse than
PPGN's a sample can be that is as natural and as diverse as pictures are.
"""

import csv
import sys

import numpy as np
from absl import app, flags

from experiments import common, real, table1_diversity
from inverse_set import metrics
from inverse_set.models import units

FLAGS = flags.FLAGS
COLUMNS = ("unit", "name", "pictures", "real", "ppgn", "ratio")


def compare(model, pictures, unit):
    """{column: value} of one class unit."""
    parsed, interval = units.parse_constraint(model, f"fc8/{unit}:p99:p99.9")
    ends = interval.low, interval.high
    near = real.inside(pictures, unit, *ends)
    rival, t = table1_diversity.rival(model, parsed, *ends), table1_diversity
    steps = t.STEPS // 10 if FLAGS.quick else t.STEPS
    theirs = t.chain_pictures(rival, t.run_chains(rival, 0, t.CHAINS, steps), t.thinned)
    distances = [metrics.mean_pair_distance(x.features) for x in (near, theirs)]
    name = model.encoder.labels[unit].split(",")[0]
    ratio = distances[0] / distances[1]
    return dict(zip(COLUMNS, (unit, name, len(near.features), *distances, ratio), strict=True))


def main(_):
    model, place = common.model(), common.folder("every_unit")
    pictures = real.load(model, FLAGS.data)
    if pictures is None:
        sys.exit("this holds the bundled model against pictures\nsay --data=DIR, Tiny ImageNet")
    classes = range(len(model.encoder.labels))[: 2 if FLAGS.quick else None]
    rows = sorted((compare(model, pictures, unit) for unit in classes), key=lambda r: r["ratio"])
    with open(place / "every_unit.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(f"{row['name']:<26}" + "".join(f"{key} {row[key]:<8.4g}" for key in COLUMNS[2:]))
    ratios = [row["ratio"] for row in rows]
    print(f"ratio: least {min(ratios):.3g}, median {np.median(ratios):.3g}, most {max(ratios):.3g}")


if __name__ == "__main__":
    app.run(main)
