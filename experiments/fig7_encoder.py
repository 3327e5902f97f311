"""Fig. 7: are distances between encodings needed?  Eq. 14 (between codes) against eq. 6.

    python -m experiments.fig7_encoder
    python -m experiments.fig7_encoder --model=caffenet --seeds=1

Every row but the paper's, whose rule has no upper end, should say inside 1.  The paper's claim
holds where eq. 14 has the larger largest_code and the more saturated pictures (numbers.csv).  Codes
are free in the first four rows: held to the natural range, as they are by default, they could not
take the extreme values that the claim is about.  The last two rows show that default.
"""

from absl import app

from experiments import common
from inverse_set.settings import Settings


def rows(model):
    asked = (common.chosen("fc8/volcano:50:60", "fc8/bell pepper:p99:p99.9"),)
    cases = (
        ("paper", "by the paper's rule", "paper", False),
        ("free", "codes free", "two_sided", False),
        ("held", "codes held", "two_sided", True),
    )
    return [
        common.Row(
            f"{name}_{kind}",
            asked,
            f"{title}, {words}",
            Settings(rule=rule, distance=distance),
            natural_codes,
        )
        for kind, words, rule, natural_codes in cases[common.FLAGS.quick :]
        for name, title, distance in (("eq14", "eq. 14", "code"), ("eq6", "eq. 6", "encoder"))
    ]


def main(_):
    common.run("fig7", rows)


if __name__ == "__main__":
    app.run(main)
