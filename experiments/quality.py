"""How good the bundled model is: its reconstructions, and what a second classifier sees in samples.

    python -m experiments.quality --data=DIR

Prints, and writes to numbers.csv, for the valid shard and for samples of 50 class units, evenly
spread, at p99 to p99.9, fifty of each by either walk:

    top1            of the classifier
    kept            share of pictures x for which it says of G(E(x)) what it says of x
    pixels          squared error of G(E(x)) over the variance of the pictures
    kernel          kernel distance to the valid pictures, in E's space
    kernel_judge    the same in that of a second classifier of another architecture
    named5, named1  share of a unit's samples whose class that one has among its first 5, or first
    least_named5    of the unit with the fewest
    saturated       share of channel values below 3 or above 252
    checker         energy of the finest checkerboard over that of the finest differences
    least_nearest   mean distance to the nearest neighbour in the unit where it is least, over the
                    natural distance: near 0 where a unit's samples collapse to one picture

The row `real` has the distance of two halves of the valid pictures, and named5 of those that lie in
a unit's interval themselves; `reconstructed` has it of those ones' G(E(x)).  direct.png and
refine.png show ten samples each of 30 units, by either walk.
"""

import sys

import jax
import numpy as np
from absl import app, flags

from experiments import common, judge, panels, real, rival, tiny_imagenet
from inverse_set import metrics
from inverse_set.models import bind, units
from inverse_set.settings import Settings

FLAGS = flags.FLAGS

UNITS, SAMPLES, SEEDS, SHOWN, BATCH = 50, 50, 10, 30, 100


def eight_bits(images):
    """Images in [0, 1] as a file keeps them, uint8."""
    return np.round(np.clip(np.asarray(images), 0, 1) * 255).astype(np.uint8)


def checker(images):
    """Energy of (a - b - c + d) over that of the differences, of 2 x 2 blocks [[a, b], [c, d]]."""
    x = images / 255.0
    across = np.diff(x, axis=2)
    both = np.diff(across, axis=1)
    down = np.diff(x, axis=1)
    return float((both**2).mean() / ((across**2).mean() + (down**2).mean()))


def saturated(images):
    return float(((images < 3) | (images > 252)).mean())


def look(model, images):
    """(codes, logits, reconstructions) of 8-bit pictures."""
    encoder, columns = model.encoder, []
    read = jax.jit(real.reader(encoder.plan, encoder.pixels))
    generate = jax.jit(bind.networks(model, []).generate)
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        filled = np.concatenate([batch, np.repeat(batch[:1], BATCH - len(batch), 0)])
        codes, logits = read(encoder.weights, filled / np.float32(255))
        found = codes, logits, eight_bits(generate(codes))
        columns.append([np.asarray(column)[: len(batch)] for column in found])
    return [np.concatenate(column) for column in zip(*columns, strict=True)]


def compare(name, images, codes, against, numbers):
    """Kernel distances and what of a picture needs no reference."""
    numbers[name, "kernel"] = metrics.kernel_distance(codes, against["codes"])
    judged, verdicts = judge.look(against["judge"], images)
    numbers[name, "kernel_judge"] = metrics.kernel_distance(judged, against["judged"])
    numbers[name, "saturated"] = saturated(images)
    numbers[name, "checker"] = checker(images)
    return verdicts


def chosen(model):
    """[(number, constraint as a text)] of the class units."""
    numbers = rival.evenly(len(model.encoder.labels), UNITS)[: 1 if FLAGS.quick else None]
    return [(number, f"fc8/{number}:p99:p99.9") for number in numbers]


def named(model, scores, verdicts, name, numbers):
    """The second classifier's verdicts on the pictures whose scores lie in the units' intervals."""
    for k in (1, 5):
        shares = []
        for number, text in chosen(model):
            _, (_, low, high, _) = units.parse_constraint(model, text)
            rows = (scores[:, number] >= low) & (scores[:, number] <= high)
            shares.append(metrics.agreement(verdicts[rows], number, k))
        numbers[name, f"named{k}"] = np.mean(shares)


def reconstructions(model, images, labels, numbers):
    """Measures G(E(x)); returns what samples are held against."""
    codes, scores, drawn = look(model, images)
    params = judge.load()
    judged, verdicts = judge.look(params, images)
    named(model, scores, verdicts, "real", numbers)
    codes_again, scores_again, _ = look(model, drawn)
    said, again = scores.argmax(1), scores_again.argmax(1)
    numbers["real", "top1"] = float((said == labels).mean())
    numbers["reconstructed", "top1"] = float((again == labels).mean())
    numbers["reconstructed", "kept"] = float((again == said).mean())
    error = np.square(images / 255.0 - drawn / 255.0).mean()
    numbers["reconstructed", "pixels"] = float(error / (images / 255.0).var())
    halves = np.random.default_rng(0).permutation(len(images)).reshape(2, -1)
    for name, each in (("kernel", codes), ("kernel_judge", judged)):
        numbers["real", name] = metrics.kernel_distance(*(each[half] for half in halves))
    numbers["real", "saturated"], numbers["real", "checker"] = saturated(images), checker(images)
    against = {"codes": codes, "judge": params, "judged": judged}
    verdicts = compare("reconstructed", drawn, codes_again, against, numbers)
    named(model, scores, verdicts, "reconstructed", numbers)
    return against


def sampled(model, against, numbers, walk):
    """Samples the class units; returns the figure's strips."""
    natural, everything, strips = common.natural_distance(model), [], []
    first, five, nearest = [], [], []
    for unit, text in chosen(model):
        row = common.Row("", (text,), "", Settings(walk=walk), True, SAMPLES, SEEDS)
        found, _ = common.sample(model, row, 0, timed=False)
        s = found.samples
        scores = judge.look(against["judge"], s.images)[1]
        first.append(metrics.agreement(scores, unit, 1))
        five.append(metrics.agreement(scores, unit, 5))
        nearest.append(metrics.nearest_neighbour_distance(s.features) / natural)
        everything.append((s.images, s.features))
        name = model.encoder.labels[unit].split(",")[0]
        lines = [name, f"named first {first[-1]:.2f}", f"of five {five[-1]:.2f}"]
        strips.append((lines, s.images[panels.choice(s.chain)]))
        print(f"{walk} {name}: {', '.join(lines[1:])}, {len(s.images)} samples", flush=True)
    images, codes = (np.concatenate(column) for column in zip(*everything, strict=True))
    numbers[walk, "named1"], numbers[walk, "named5"] = np.mean(first), np.mean(five)
    numbers[walk, "least_named5"] = np.min(five)
    numbers[walk, "least_nearest"] = np.min(nearest)
    compare(walk, images, codes, against, numbers)
    return strips[:SHOWN]


def write(path, numbers):
    lines = [("pictures", "number", "value")]
    lines += [(name, number, float(value)) for (name, number), value in numbers.items()]
    common.write_csv(path, lines)


def main(_):
    model, place = common.model(), common.folder("quality")
    if not FLAGS.data or model.name != "mini" or model.untrained:
        sys.exit("this measures the bundled model on pictures\nsay --data=DIR, Tiny ImageNet")
    order = [wordnet for wordnet, _ in tiny_imagenet.class_names(FLAGS.data)]
    classes = [order.index(wordnet) for wordnet in model.record["wordnet"]]
    images, labels = tiny_imagenet.load(FLAGS.data, "valid", classes)
    if FLAGS.quick:
        images, labels = images[::5], labels[::5]
    numbers = {}
    images = tiny_imagenet.resized(images, model.resolution)
    against = reconstructions(model, images, labels, numbers)
    for walk in ("direct", "refine"):
        strips = sampled(model, against, numbers, walk)
        panels.panel(strips).save(place / f"{walk}.png")
        write(place / "numbers.csv", numbers)  # the next walk takes a while
    for (name, number), value in numbers.items():
        print(f"{name:<14} {number:<14} {value:.4g}")
    print(f"written to {place}")


if __name__ == "__main__":
    app.run(main)
