"""Fig. 8: ten codes that start as one.  Eq. 15 (nothing maximised) against eq. 6.

    python -m experiments.fig8_same_start
    python -m experiments.fig8_same_start --model=caffenet --seeds=1

Every row should say inside 1. At exactly equal codes the gradient of eq. 6 is the same for all (a
saddle): nothing sets them apart but the rounding, where that differs from row to row of a batch
(on some processors it does, by 4e-7 of the gradient), and that row should have next to no
distance. So in the other rows each code is moved by normal noise of a thousandth of the natural
standard deviation; Adam's normalised steps enlarge it, with eq. 15 too. Until all are inside,
which takes few steps, eq. 6 should gain hardly anything over eq. 15; where it goes on until
diversity stops growing, or the budget ends, it should take the codes far apart.
"""

import jax
import numpy as np
from absl import app

from experiments import common
from inverse_set.models import bind
from inverse_set.settings import Settings

JITTER = 0.001  # natural standard deviations


def same(model, count, seed):
    """One code, `count` times."""
    code = bind.starting_codes(model, bind.default_start(model), 1, seed)
    return np.repeat(code, count, axis=0)


def nearly_same(model, count, seed):
    """One code, `count` times, each moved a little."""
    codes = same(model, count, seed)
    deviation = ((model.codes.code_square or 1.0) / (2 * codes.shape[1])) ** 0.5
    noise = jax.random.normal(jax.random.fold_in(jax.random.key(seed), 1), codes.shape)
    return codes + np.float32(JITTER * deviation) * np.asarray(noise)


def rows(model):
    asked = (common.chosen("fc8/volcano:50:60", "fc8/bell pepper:p99:p99.9"),)
    count, budget = common.FLAGS.num_seeds, 100 if common.FLAGS.quick else 1000
    nothing, inside = Settings(distance="none"), Settings()
    on = Settings(stop="plateau", seed_steps=budget)
    cases = (
        ("eq15", "eq. 15", nothing, nearly_same),
        ("eq6_equal", "eq. 6, equal starts", inside, same),
        ("eq6", "eq. 6 until inside", inside, nearly_same),
        ("eq6_on", "eq. 6, to the plateau", on, nearly_same),
    )
    return [
        common.Row(name, asked, title, settings, num_samples=count, start=start)
        for name, title, settings, start in cases
    ]


def main(_):
    common.run("fig8", rows)


if __name__ == "__main__":
    app.run(main)
