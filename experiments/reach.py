"""How many units are reached: seeds of every class unit, and of a hundred units of conv5.

    python -m experiments.reach
    python -m experiments.reach --model=caffenet --num_seeds=4

Ten seeds a unit (--num_seeds), from p95 to p99.9 of its natural activations, at most 400 gradient
steps, the same settings for all.  Prints for each layer the share of units whose seeds all lie
inside (at least 0.95 is wanted) and the median of their steps; reach.csv has a line a unit, with
the activation that came nearest where seeds stayed outside.
"""

import csv

import numpy as np
from absl import app, flags

from experiments import common
from inverse_set import certified
from inverse_set.errors import UserError
from inverse_set.settings import Settings

FLAGS = flags.FLAGS
INTERVAL, BUDGET = "p95:p99.9", 400
HIDDEN, UNITS = "conv5", 100
COLUMNS = ("layer", "unit", "low", "high", "inside", "seeds", "steps", "nearest")


def chosen(model):
    """[(layer, unit)]: all units of the last layer and some of the hidden one."""
    network = model.subject
    last = network.plan[-1].name
    classes = np.arange(network.shapes[last][-1])
    channels = np.random.default_rng(0).permutation(network.shapes[HIDDEN][-1])[:UNITS]
    few = 2 if FLAGS.quick else None
    pairs = [(last, unit) for unit in classes[:few]]
    return pairs + [(HIDDEN, unit) for unit in np.sort(channels)[:few]]


def reach(model, layer, unit):
    """{column: value} of one unit; inside is 0 where there is no interval."""
    seeds = FLAGS.num_seeds
    blank = dict.fromkeys(COLUMNS, "") | {"layer": layer, "unit": unit, "seeds": seeds}
    asked, settings = (f"{layer}/{unit}:{INTERVAL}",), Settings(seed_steps=BUDGET)
    try:
        found = certified.sample(model, asked, seeds, seeds, 0, settings)
    except UserError as error:
        return blank | {"inside": 0, "nearest": error.what}
    (constraint,) = found.constraints
    inside = len(found.samples.images)
    return blank | {
        "low": f"{constraint.low:.4g}",
        "high": f"{constraint.high:.4g}",
        "inside": inside,
        "steps": found.result.seed_steps,
        "nearest": f"{found.result.nearest[0]:.4g}" if inside < seeds else "",
    }


def main(_):
    model, place = common.model(), common.folder("reach")
    rows = []
    for layer, unit in chosen(model):
        rows.append(reach(model, layer, unit))
        if rows[-1]["inside"] < FLAGS.num_seeds:
            print(*(f"{k} {v}" for k, v in rows[-1].items()), sep="  ", flush=True)
    with open(place / "reach.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for layer in dict.fromkeys(row["layer"] for row in rows):
        mine = [row for row in rows if row["layer"] == layer]
        whole = [row for row in mine if row["inside"] == row["seeds"]]
        steps = np.median([row["steps"] for row in whole]) if whole else np.nan
        seeds = sum(row["inside"] for row in mine) / sum(row["seeds"] for row in mine)
        says = f"{layer}: {len(whole)} of {len(mine)} units, {seeds:.3f} of all seeds inside"
        print(f"{says}; {steps:g} steps, the median")
    print(f"written to {place}")


if __name__ == "__main__":
    app.run(main)
