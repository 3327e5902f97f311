"""Fig. 6: neurons of another network, trained on other labels, through the first one's E and G.

    python -m experiments.fig6_other_network
    python -m experiments.fig6_other_network --model=caffenet --seeds=1

Every row should say inside 1.  On caffenet the other network is Places205 (gas station, phone
booth).  On the bundled model it is `scenes`, which tells kinds of scenes, of which the bundled
pair's training knew nothing; E and G draw, so pictures are made of what 40 kinds of objects show.
"""

from absl import app

from experiments import common

PAPER = ("fc8/gas_station:40:50", "fc8/phone_booth:40:50")
BUNDLED = (
    "fc8/underwater:p99:p99.9",
    "fc8/coast and mountains:p99:p99.9",
    "fc8/buildings and bridges:p99:p99.9",
)


def rows(model):
    asked = common.chosen(PAPER, BUNDLED)
    return [
        common.Row(text.split("/")[1].split(":")[0].replace(" ", "_"), (text,)) for text in asked
    ]


def main(_):
    common.run("fig6", rows, subject=common.chosen("places205", "scenes"))


if __name__ == "__main__":
    app.run(main)
