"""Fig. 3: a unit of the last convolutional layer at two levels.

    python -m experiments.fig3_hidden_levels
    python -m experiments.fig3_hidden_levels --model=caffenet --seeds=1

Every row should say inside 1, and the two rows should show different things.  On caffenet the unit
is conv5/196 at the centre (the paper's 197, counted from 1), before its ReLU: faces of people at
170 to 200, of dogs at 260 to 300.  On the bundled model it is conv5/54 at the centre, from the 90th
to the 95th percentile and from the 99th to the 99.9th.
"""

from absl import app

from experiments import common


def rows(model):
    paper = ("conv5/196@6,6:170:200", "conv5/196@6,6:260:300")
    bundled = ("conv5/54@8,8:p90:p95", "conv5/54@8,8:p99:p99.9")
    lower, higher = common.chosen(paper, bundled)
    return [common.Row("lower", (lower,)), common.Row("higher", (higher,))]


def main(_):
    common.run("fig3", rows)


if __name__ == "__main__":
    app.run(main)
