"""Fig. 4: two class units, each alone, then both at once.

    python -m experiments.fig4_intersection
    python -m experiments.fig4_intersection --model=caffenet --seeds=1

Every row should say inside 1, and samples of the last should have something of both.  On caffenet
the units are monastery and toilet seat in 40 to 50.  On the bundled model they are bell pepper and
orange from the 99th to the 99.9th percentile, which hardly any natural picture reaches in both.
"""

from absl import app

from experiments import common


def rows(model):
    paper = ("fc8/monastery:40:50", "fc8/toilet seat:40:50")
    bundled = ("fc8/bell pepper:p99:p99.9", "fc8/orange:p99:p99.9")
    first, second = common.chosen(paper, bundled)
    return [
        common.Row("first", (first,)),
        common.Row("second", (second,)),
        common.Row("both", (first, second)),
    ]


def main(_):
    common.run("fig4", rows)


if __name__ == "__main__":
    app.run(main)
