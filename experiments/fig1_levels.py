"""Fig. 1: one unit at six levels, from what most pictures reach to what none does.

    python -m experiments.fig1_levels
    python -m experiments.fig1_levels --model=caffenet --seeds=1

Every row should say inside 1.  The pictures should turn from things of any kind into ever plainer
bell peppers (caffenet: volcanoes with ever more lava and smoke).  The paper gives the intervals in
its figure alone; on caffenet these are tens up to the 50 to 60 of its other figures.  On the
bundled model they are percentiles of the unit over natural pictures, and for the last row the
interval above the 99.9th, as wide as that from the 99th to it.
"""

from absl import app

from experiments import common
from inverse_set.models import units

UNIT = "fc8/bell pepper"
PERCENTILES = (("p50", "p75"), ("p75", "p90"), ("p90", "p95"), ("p95", "p99"), ("p99", "p99.9"))


def beyond(model, unit):
    """The interval above natural pictures, as a constraint."""
    place = units.parse_unit(model, unit)
    first, last = (units.natural_percentile(model, place, p) for p in (99, 99.9))
    return f"{unit}:{last:.3f}:{2 * last - first:.3f}"


def rows(model):
    if model.name == "caffenet":
        asked = [f"fc8/volcano:{low}:{low + 10}" for low in range(0, 60, 10)]
        return [common.Row(text.rpartition("/")[2].replace(":", "_"), (text,)) for text in asked]
    found = [common.Row(f"{low}_{high}", (f"{UNIT}:{low}:{high}",)) for low, high in PERCENTILES]
    return [*found, common.Row("beyond", (beyond(model, UNIT),), "beyond p99.9")]


def main(_):
    common.run("fig1", rows)


if __name__ == "__main__":
    app.run(main)
