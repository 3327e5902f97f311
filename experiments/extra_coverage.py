"""Does the sample cover the real pictures in the interval, and how does that grow with n?

    python -m experiments.extra_coverage --data=DIR
    python -m experiments.extra_coverage --model=caffenet     (no pictures: says so and ends)

Rows WAY_N: the first N samples of a run of `direct`, `accumulate` (C0 keeps all) or `refine`, from
20 seeds, and `joint`, eq. 16 with N codes at once until all are inside.  `coverage` is the share
of balls around real pictures, each reaching to its fifth real neighbour, that hold a sample;
`density` how many such balls a sample lies in, over 5; `over_direct` the coverage less that of
direct_N, of the same pictures.  Rows real_N: N other real pictures, the most one can hope for.  The
sampler never sees the pictures.
"""

import sys

import numpy as np
from absl import app, flags

from experiments import common, panels, real
from inverse_set import metrics
from inverse_set.models import units
from inverse_set.settings import Settings

FLAGS = flags.FLAGS
ASKED = "fc8/bell pepper:p99:p99.9"
SIZES = (25, 50, 100)
COLUMNS = ("samples", "density", "coverage", "over_direct")
JOINT = (25, 50)  # of eq. 16, whose cost grows with n
WAYS = {
    "direct": Settings(),
    "accumulate": Settings(memory="accumulate"),
    "refine": Settings(walk="refine"),
}


def spread(features, size):
    """`size` rows of `[n, F]` as evenly from the whole run as can be."""
    return features[np.linspace(0, len(features) - 1, size).round().astype(int)]


def samples(model, seed, sizes):
    """{way and size: features} and {way: images} of one repetition."""
    found, pictures = {}, {}
    seeds = 10 if FLAGS.quick else 20
    for way, settings in WAYS.items():
        row = common.Row(
            way, (ASKED,), settings=settings, num_samples=sizes[-1], num_seeds=min(seeds, sizes[-1])
        )
        one = common.sample(model, row, seed, timed=False)[0].samples
        pictures[way] = one.images[panels.choice(one.chain)]
        for size in sizes:
            found[f"{way}_{size}"] = spread(one.features, min(size, len(one.features)))
    for size in sizes[:1] if FLAGS.quick else JOINT:
        joint = Settings(method="joint", stop="inside")
        row = common.Row("joint", (ASKED,), settings=joint, num_samples=size, num_seeds=size)
        one = common.sample(model, row, seed, timed=False)[0].samples
        found[f"joint_{size}"] = one.features
    return found, pictures


def main(_):
    model, place = common.model(), common.folder("coverage")
    pictures = real.load(model, FLAGS.data, FLAGS.quick)
    if pictures is None:
        sys.exit("there are no real pictures to cover\ngive --data=DIR, with --model=mini")
    unit, constraint = units.parse_constraint(model, ASKED)
    pictures = real.inside(pictures, unit.index[0], constraint.low, constraint.high)
    count, sizes = len(pictures.features), (10, 20) if FLAGS.quick else SIZES
    numbers, strips = {}, []
    for seed in range(2 if FLAGS.quick else FLAGS.seeds):
        order = np.random.default_rng(seed).permutation(count)
        covered, others = np.split(pictures.features[order], [count // 2])
        found, shown = samples(model, seed, sizes)
        found |= {f"real_{size}": others[:size] for size in sizes if size <= len(others)}
        strips = strips or [([way], images) for way, images in shown.items()]
        shares = {n: metrics.density_and_coverage(f, covered) for n, f in found.items()}
        for name, (density, coverage) in shares.items():
            over = coverage - shares[f"direct_{name.split('_')[1]}"][1]
            columns = float(len(found[name])), density, coverage, over
            each = numbers.setdefault(name, {column: [] for column in COLUMNS})
            for column, value in zip(COLUMNS, columns, strict=True):
                each[column].append(value)
            print(f"{name:<16} seed {seed}  coverage {coverage:.3f}  density {density:.3f}")
    common.write_tables(place, dict.fromkeys(numbers, ASKED), numbers)
    panels.panel(strips).save(place / "figure.png")
    print(f"written to {place}")


if __name__ == "__main__":
    app.run(main)
