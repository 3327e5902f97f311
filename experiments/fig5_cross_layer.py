"""Fig. 5: a hidden unit together with a class unit, for two classes.

    python -m experiments.fig5_cross_layer
    python -m experiments.fig5_cross_layer --model=caffenet --seeds=1

Every row should say inside 1 and show the class with the hidden unit's pattern in its centre.  On
caffenet conv5/196 at the centre is held to 260 to 300 with toilet tissue in 20 to 50, then with
toilet seat in 40 to 50.  On the bundled model conv5/54 at the centre is held from the 99th to the
99.9th percentile, with bell pepper, then with monarch, from the 95th to the 99.9th.
"""

from absl import app

from experiments import common


def rows(model):
    paper = ("conv5/196@6,6:260:300", "fc8/toilet tissue:20:50", "fc8/toilet seat:40:50")
    bundled = ("conv5/54@8,8:p99:p99.9", "fc8/bell pepper:p95:p99.9", "fc8/monarch:p95:p99.9")
    hidden, first, second = common.chosen(paper, bundled)
    return [common.Row("first", (hidden, first)), common.Row("second", (hidden, second))]


def main(_):
    common.run("fig5", rows)


if __name__ == "__main__":
    app.run(main)
