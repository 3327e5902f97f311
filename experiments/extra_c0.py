"""C0: only the newest samples, as in the paper, or all of them.

    python -m experiments.extra_c0
    python -m experiments.extra_c0 --model=caffenet --seeds=1

Every row should say inside 1.  Compare distance, nearest and vendi of the two rows of a unit: the
paper keeps the newest alone to save work, and running sums make all of them as cheap.
"""

from absl import app

from experiments import common
from inverse_set.settings import Settings

PAPER = {"volcano": "fc8/volcano:50:60", "cardoon": "fc8/cardoon:40:50"}
BUNDLED = {
    "bell_pepper": "fc8/bell pepper:p99:p99.9",
    "monarch": "fc8/monarch:p99:p99.9",
    "orange": "fc8/orange:p99:p99.9",
}


def rows(model):
    asked = common.chosen(PAPER, BUNDLED)
    names = list(asked)[:1] if common.FLAGS.quick else list(asked)
    return [
        common.Row(f"{name}_{memory}", (asked[name],), title, Settings(memory=memory))
        for name in names
        for memory, title in (("replace", "C0: the newest"), ("accumulate", "C0: all"))
    ]


def main(_):
    common.run("extra_c0", rows)


if __name__ == "__main__":
    app.run(main)
