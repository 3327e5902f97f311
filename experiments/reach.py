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
from inverse_set.models import units
from inverse_set.settings import Settings

FLAGS = flags.FLAGS
INTERVAL, BUDGET = "p95:p99.9", 400
HIDDEN, UNITS = "conv5", 100
COLUMNS = ("layer", "unit", "low", "high", "inside", "seeds", "steps", "nearest")


def chosen(model):
    """{layer: its units}: all of the last layer and some of the hidden one."""
    network = model.subject
    last = network.plan[-1].name
    classes = np.arange(network.shapes[last][-1])
    channels = np.random.default_rng(0).permutation(network.shapes[HIDDEN][-1])[:UNITS]
    few = 2 if FLAGS.quick else None
    return {last: classes[:few], HIDDEN: np.sort(channels)[:few]}


def reach(model, text, start):
    """{column: value} of the constraint `text`; start: codes `[seeds, D]`."""
    settings = Settings(seed_steps=BUDGET)
    found = certified.sample(model, (text,), len(start), len(start), 0, settings, start)
    (constraint,) = found.constraints
    inside = len(found.samples.images)
    return {
        "low": f"{constraint.low:.4g}",
        "high": f"{constraint.high:.4g}",
        "inside": inside,
        "steps": found.result.seed_steps,
        "nearest": f"{found.result.nearest[0]:.4g}" if inside < len(start) else "",
    }


def layer_rows(model, layer, numbers):
    """Rows of reach.csv, {column: value}; inside is 0 where a unit has no interval."""
    count, rows, asked = FLAGS.num_seeds, [], []
    for unit in numbers:
        rows.append(dict.fromkeys(COLUMNS, "") | {"layer": layer, "unit": unit, "seeds": count})
        text = f"{layer}/{unit}:{INTERVAL}"
        try:
            asked.append((rows[-1], text, units.parse_constraint(model, text)))
        except UserError as error:
            rows[-1] |= {"inside": 0, "nearest": error.what}
    codes = common.starts(model, [pair for *_, pair in asked], count, 0) if asked else ()
    for (row, text, _), start in zip(asked, codes, strict=True):
        row |= reach(model, text, start)
        if row["inside"] < count:
            print(*(f"{k} {v}" for k, v in row.items()), sep="  ", flush=True)
    return rows


def main(_):
    model, place = common.model(), common.folder("reach")
    rows = []
    for layer, numbers in chosen(model).items():
        rows += layer_rows(model, layer, numbers)
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
