"""Fig. 2: pictures of three class units, ours and PPGN's, ten of each.

    python -m experiments.fig2_classes
    python -m experiments.fig2_classes --model=caffenet

One seed of table1_diversity.py, whose docstring says what its rows are.
"""

from absl import app

from experiments import table1_diversity


def main(_):
    table1_diversity.compare("fig2", 1)


if __name__ == "__main__":
    app.run(main)
