"""Holds a generator in training against the one that ships, on pictures that neither has seen.

    python -m experiments.judge_generator --data=DIR --weights=runs/mini/generator.safetensors

Of the valid pictures x that drive some class units to p99 to p99.9, and of G(E(x)) by either:

    named1, named5  share of which a judge from outside names the unit's class first, or among its
                    first five of the bundled model's classes
    class1, class5  the same for the class of x itself, as its label has it
    four, eight     lattice numbers of 4 and 8 pixels along the diagonals, and of 2 (`two`): power
    two             over that of neighbouring frequencies, 1 where there is no lattice
    contrast        mean standard deviation of a channel
    length          |E(picture)| over that of the pictures x
    kept            share of which the classifier says what it says of x
    pixels          squared error over the variance of the pictures x

A sheet beside the weights, judged_NAME.png, shows 24 of them: x, the shipped one's, the other's.
"""

import pathlib

import jax
import numpy as np
import torch
from absl import app, flags
from PIL import Image

from experiments import fitting, outside_judge, real, spectra, tiny_imagenet
from inverse_set import metrics
from inverse_set.models import mini, units, zoo
from inverse_set.models.generator import Generator

FLAGS = flags.FLAGS
flags.DEFINE_string("data", None, "folder of Tiny ImageNet", required=True)
flags.DEFINE_string("weights", None, "file that --stage=generator wrote", required=True)
flags.DEFINE_integer("units", 20, "class units, evenly spread", lower_bound=1)

SHOWN, COLUMNS, BATCH = 24, 8, 100


def evenly(count, wanted):
    """At most `wanted` numbers below `count`, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).astype(int))


def by_batches(function, *arrays):
    """function of each batch of rows, the last filled up; what it returns, put together."""
    size, columns = len(arrays[0]), []
    for start in range(0, size, BATCH):
        parts = [array[start : start + BATCH] for array in arrays]
        short = BATCH - len(parts[0])
        filled = [np.concatenate([part, np.repeat(part[:1], short, 0)]) for part in parts]
        columns.append([np.asarray(c)[: BATCH - short] for c in jax.tree.leaves(function(*filled))])
    return [np.concatenate(column) for column in zip(*columns, strict=True)]


def drawer(weights):
    """codes -> 8-bit pictures, of weights `{layer: {kernel, bias}}`."""
    width = weights["deconv2"]["bias"].size
    plan = mini.generator_plan(width, residual="conv2_1" in weights)
    run, kept = jax.jit(Generator(plan).apply), {"params": jax.device_put(weights)}

    def draw(codes):
        (images,) = by_batches(lambda some: run(kept, some), codes)
        return np.round(images * 255).astype(np.uint8)

    return draw


def driven(model, scores):
    """(rows, units): pictures whose scores `[n, C]` lie in a unit's interval, unit by unit."""
    rows, wanted = [], []
    for number in evenly(len(model.encoder.labels), FLAGS.units):
        _, (_, low, high, _) = units.parse_constraint(model, f"fc8/{number}:p99:p99.9")
        mine = np.flatnonzero((scores[:, number] >= low) & (scores[:, number] <= high))
        rows.extend(mine)
        wanted.extend([number] * len(mine))
    return np.array(rows), np.array(wanted)


def sheet(columns, path):
    """Each of the columns `[n, H, W, 3]` one over the other, eight pictures a row."""
    chosen = evenly(len(columns[0]), SHOWN)
    chosen = chosen[: len(chosen) // COLUMNS * COLUMNS]
    stacked = np.stack([column[chosen] for column in columns], 1)
    rows = stacked.reshape(-1, COLUMNS, *stacked.shape[1:]).transpose(0, 2, 3, 1, 4, 5)
    picture = Image.fromarray(rows.reshape(-1, COLUMNS * stacked.shape[3], 3))
    picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST).save(path)


def main(_):
    torch.set_num_threads(1)
    model, path = zoo.load("mini"), pathlib.Path(FLAGS.weights)
    order = [wordnet for wordnet, _ in tiny_imagenet.class_names(FLAGS.data)]
    classes = [order.index(wordnet) for wordnet in model.record["wordnet"]]
    images, labels = tiny_imagenet.load(FLAGS.data, "valid", classes)
    encoder = model.encoder
    reader = real.reader(encoder.plan, encoder.pixels)

    def read(pictures):
        return by_batches(lambda x: reader(encoder.weights, x / np.float32(255)), pictures)

    codes, scores = read(images)
    rows, wanted = driven(model, scores)
    images, labels, codes = images[rows], labels[rows], codes[rows]
    said = scores[rows].argmax(1)
    shown = {
        "real": images,
        "shipped": drawer(model.generator.weights)(codes),
        path.stem: drawer(fitting.load_folded(path))(codes),
    }
    judge, places = outside_judge.load(), outside_judge.places(encoder.labels)
    print(f"{len(rows)} pictures of {len(np.unique(wanted))} units")
    for name, pictures in shown.items():
        verdicts = outside_judge.look(judge, pictures, places)
        spectrum, (again, said_again) = spectra.power(pictures), read(pictures)
        numbers = {
            "named1": metrics.agreement(verdicts, wanted, 1),
            "named5": metrics.agreement(verdicts, wanted, 5),
            "class1": metrics.agreement(verdicts, labels, 1),
            "class5": metrics.agreement(verdicts, labels, 5),
            "four": spectra.lattice(spectrum, spectra.FOUR),
            "eight": spectra.lattice(spectrum, spectra.EIGHT),
            "two": spectra.lattice(spectrum, spectra.TWO),
            "contrast": spectra.contrast(pictures),
            "length": np.linalg.norm(again, axis=1).mean() / np.linalg.norm(codes, axis=1).mean(),
            "kept": (said_again.argmax(1) == said).mean(),
            "pixels": np.square(pictures / 255 - images / 255).mean() / (images / 255).var(),
        }
        print(f"{name:<10}", *(f"{key} {value:.3f}" for key, value in numbers.items()), flush=True)
    place = path.with_name(f"judged_{path.stem}.png")
    sheet(list(shown.values()), place)
    print(f"written to {place}")


if __name__ == "__main__":
    app.run(main)
