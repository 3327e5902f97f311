"""Fig. 9: what the fast process gives up.  40 samples, K = 10, the same starting codes.

    python -m experiments.fig9_approximation
    python -m experiments.fig9_approximation --model=caffenet --seeds=1

    joint   eq. 16: all 40 codes at once, until diversity stops growing or the budget ends
    full    seeds optimised until their diversity stops growing, then sampling
    fast    seeds stopped as soon as they are inside, then sampling (the method)

Every row should say inside 1.  The paper's claim: the three look alike, so fast should keep most of
joint's distance at a small part of its steps.  `steps` are gradient steps, of 40 codes in joint
and of 10 in the others; `work` (printed) is steps times codes, and seconds are what a person waits.
The first ten starting codes of joint are those of the other two.  The budget of joint and of full
seeds is 300 steps on the bundled model (1000 on caffenet), a plateau 100 steps without a thousandth
more; `refine` is the fast process with the refining walk.
"""

from absl import app

from experiments import common
from inverse_set.models import bind
from inverse_set.settings import Settings

SAMPLES, SEEDS = 40, 10


def starts(model, count, seed):
    """The first `count` of one list of codes, whatever the count."""
    return bind.starting_codes(model, bind.default_start(model), SAMPLES, seed)[:count]


def rows(model):
    asked = (common.chosen("fc8/volcano:50:60", "fc8/bell pepper:p99:p99.9"),)
    budget = 40 if common.FLAGS.quick else common.chosen(1000, 300)
    joint = Settings(method="joint", seed_steps=budget, plateau=100)
    full = Settings(stop="plateau", seed_steps=budget, plateau=100)
    cases = (
        ("joint", "eq. 16, all at once", joint),
        ("full", "full seeds + sampling", full),
        ("fast", "fast seeds + sampling", Settings()),
        ("refine", "fast seeds + refining walk", Settings(walk="refine")),
    )
    count = 20 if common.FLAGS.quick else SAMPLES
    return [
        common.Row(name, asked, title, settings, True, count, SEEDS, starts)
        for name, title, settings in cases
    ]


def main(_):
    numbers = common.run("fig9", rows)
    for name, columns in numbers.items():
        codes = columns["samples"] if name == "joint" else SEEDS
        print(f"{name:<8} work {(columns['steps'] * codes).mean():.0f} steps of one code")


if __name__ == "__main__":
    app.run(main)
