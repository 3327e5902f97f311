"""Table 1's comparison at twenty class units, one seed each: where it holds, how far it can go.

    python -m experiments.every_unit --data=DIR
    python -m experiments.paper --data=DIR --only=every_unit

The units are evenly spread over the classes.  For each at p99 to p99.9: table 1's rows `likely` and
`ppgn_many`, --num_samples of either from one seed, whatever --seeds says (there are enough units to
tell chance by), and the real pictures in the interval.  ratio and ratio_real are distances over
those of PPGN as the paper runs it; ratio_real says how much more diverse than PPGN's a sample can
be that is as natural and as diverse as pictures are.  Prints a line a unit, then in how many units
ours beat PPGN's by each measure; the tables have the units with the least ratio_real first.  A row
of the figure is five of ours and five of PPGN's.
"""

import sys

import numpy as np
from absl import app, flags

from experiments import claims, common, judge, panels, real, rival
from experiments import table1_diversity as table1
from inverse_set import metrics
from inverse_set.models import units

FLAGS = flags.FLAGS
UNITS = 20
# After 15 steps nearly all of a hundred seeds are inside, and few of the others ever come.
LIKELY = table1.LIKELY._replace(seed_steps=30)
COMPARED = ("nearest", "vendi", "kernel", "agreement1")


def chosen(classes):
    """Numbers of the units, evenly spread."""
    return rival.evenly(classes, UNITS)


def compare(model, pictures, second, asked):
    """{number: value} of one class unit, its constraints, and pictures of ours and PPGN's."""
    natural = common.natural_distance(model)
    count = 20 if FLAGS.quick else FLAGS.num_samples  # ours from as many seeds
    steps = rival.SHORT if FLAGS.quick else rival.STEPS
    against = rival.of(model, asked)
    run = rival.run_chains(against, 0, rival.CHAINS, steps)
    apart = metrics.mean_pair_distance(rival.chain_pictures(against, run, rival.thinned).features)
    theirs = rival.many(against, 0, count)
    likely, theirs = rival.likely(asked, theirs), rival.at_most(theirs, count)
    mine, run = table1.ours(model, likely, 0, count, count, LIKELY, timed=False)
    ends = np.asarray([units.parse_constraint(model, text)[1][1:3] for text in likely]).T
    near = real.inside(pictures, against.unit, *ends[:, 0])
    ours, ppgn = (
        table1.measure(p, *ends[:, :columns], natural, near, against.unit, second, *wanted)
        for p, columns, wanted in ((mine, 2, (count, run.dropped)), (theirs, 1, ()))
    )
    reality = table1.measure_real(near, natural, against.unit, second)
    row = {number: ours[number] for number in ("samples", "found", "inside")}
    row["pictures"] = reality["samples"]
    row |= {"ratio": ours["distance"] / apart, "ratio_real": reality["distance"] / apart}
    for number in COMPARED:
        row |= {number: ours[number], f"{number}_ppgn": ppgn[number]}
    return row | {"agreement1_real": reality["agreement1"]}, likely, (mine, theirs)


def main(_):
    model, place = common.model(), common.folder("every_unit")
    pictures = real.load(model, FLAGS.data, FLAGS.quick)
    if pictures is None:
        sys.exit("this holds the bundled model against pictures\nsay --data=DIR, Tiny ImageNet")
    second, rows, texts, strips = judge.load(), {}, {}, []
    for unit in chosen(len(model.encoder.labels))[: 2 if FLAGS.quick else None]:
        name = model.encoder.labels[unit].split(",")[0]
        row, likely, both = compare(model, pictures, second, f"fc8/{name}:p99:p99.9")
        rows[name], texts[name] = row, " and ".join(likely)
        five = [p.images[panels.choice(p.chain)[::2]] for p in both]
        strips.append(([name, "ours, then PPGN's"], np.concatenate(five)))
        print(f"{name:<26}" + "".join(f"{key} {row[key]:<8.4g} " for key in row), flush=True)
    rows = dict(sorted(rows.items(), key=lambda item: item[1]["ratio_real"]))
    numbers = {name: {key: [value] for key, value in row.items()} for name, row in rows.items()}
    common.write_tables(place, texts, numbers)
    panels.panel(strips).save(place / "figure.png")
    shares = [row["ratio_real"] for row in rows.values()]
    print(f"ratio_real: {min(shares):.3g} to {max(shares):.3g}, median {np.median(shares):.3g}")
    table = {
        name: {key: metrics.interval(values) for key, values in row.items()}
        for name, row in numbers.items()
    }
    for finding in claims.every_unit(table):
        print(f"{finding.verdict}: {finding.says}")


if __name__ == "__main__":
    app.run(main)
