"""What one-sided acceptance lets through: the paper's rule as printed against the two-sided one.

    python -m experiments.extra_two_sided
    python -m experiments.extra_two_sided --model=caffenet --seeds=1

The two-sided rows should say inside 1.  Eq. 8 holds f only from below, so under the paper's rule
`beyond` (numbers.csv) is the share of samples above the interval asked for, and inside is the rest.
"""

from absl import app

from experiments import common
from inverse_set.settings import Settings

PAPER = {"volcano": "fc8/volcano:50:60", "cardoon": "fc8/cardoon:40:50"}
BUNDLED = {
    "bell_pepper_p75": "fc8/bell pepper:p75:p90",
    "bell_pepper": "fc8/bell pepper:p99:p99.9",
    "monarch": "fc8/monarch:p99:p99.9",
}


def rows(model):
    asked = common.chosen(PAPER, BUNDLED)
    names = list(asked)[-1:] if common.FLAGS.quick else list(asked)
    rules = (("paper", "one-sided"), ("two_sided", "two-sided"))
    return [
        common.Row(f"{name}_{rule}", (asked[name],), title, Settings(rule=rule))
        for name in names
        for rule, title in rules
    ]


def main(_):
    common.run("extra_two_sided", rows)


if __name__ == "__main__":
    app.run(main)
