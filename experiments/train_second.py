"""Trains the two further classifiers that the experiments need, and exports them.

    python -m experiments.train_second --which=judge --data=DIR --steps=1800
    python -m experiments.train_second --which=scenes --data=DIR --steps=3000 --learning_rate=3e-3

judge: the bundled model's classes, an architecture and a seed of its own (experiments/judge.py);
written to experiments/weights/.  scenes: mini's own plan at half the width, on kinds of scenes in
place of objects, the bundled model's `--subject=scenes`; written to inverse_set/models/weights/.
For a pair of 64 pixels both need --resolution=64: experiments/train_mini.py has the commands.
Both go on from the newest checkpoint in --out, and export again what is trained already.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from absl import app, flags

from experiments import judge, mini_classifier, mini_export, tiny_imagenet, train_mini, training
from inverse_set.models import mini, zoo
from inverse_set.models.classifier import Classifier

# What a picture was taken of, seen as a scene: label numbers.  Those that tell none are left out.
SCENES = {
    "underwater": (0, 13, 14, 17, 23, 46, 148, 196),
    "coast and mountains": (20, 21, 22, 71, 115, 194, 195, 197, 198),
    "street and traffic": (70, 81, 94, 103, 107, 111, 116, 121, 133, 145, 153, 166),
    "buildings and bridges": (66, 91, 96, 102, 124, 154, 157, 162, 165, 170, 173),
    "rooms and shops": (61, 64, 65, 69, 82, 89, 93, 97, 98, 113, 126, 140, 142, 151),
    "kitchen and food": (104, 160, 174, 175, 177, 178, 179, 181, 182, 190, 191, 192, 193),
    "fruit and vegetables": (183, 184, 186, 187, 188, 189),
    "people and clothing": (60, 62, 74, 77, 85, 105, 112, 119, 120, 134, 150, 158, 169),
    "garden and insects": (8, 9, 15, 16, 36, 37, 38, 39, 40, 42, 43, 44, 45, 152),
    "grassland": (33, 34, 48, 49, 50, 51, 52, 53, 57, 164),
    "pets at home": (24, 25, 26, 27, 28, 29, 30, 31, 32, 47),
}
WIDTH = 16  # channels of the scenes network's conv1
LAYERS = ("conv5", "fc6", "fc7", "fc8")  # whose natural activations ship
SEED = 1000  # added to --seed: neither starts where the bundled model did
FLAGS = flags.FLAGS
flags.DEFINE_enum("which", None, ["judge", "scenes"], "which network", required=True)
flags.DEFINE_string("export", None, "file to write in place of the shipped one")


def scene_numbers():
    """{label number: number of its scene}."""
    return {label: i for i, labels in enumerate(SCENES.values()) for label in labels}


def data(which):
    """(names of the classes, training data, valid data)."""
    names = tiny_imagenet.class_names(FLAGS.data)
    known = range(len(names))
    classes = train_mini.chosen_classes(known) if which == "judge" else sorted(scene_numbers())
    classes = [label for label in classes if label in known]
    splits = [tiny_imagenet.load(FLAGS.data, split, classes) for split in ("train", "valid")]
    if which == "judge":
        return [names[label][1] for label in classes], *splits
    scene = np.asarray([scene_numbers()[label] for label in classes], np.int32)
    return list(SCENES), *((images, scene[labels]) for images, labels in splits)


def main(_):
    out = pathlib.Path(FLAGS.out)
    out.mkdir(parents=True, exist_ok=True)
    which, side = FLAGS.which, int(FLAGS.resolution)
    labels, train, valid = data(which)
    settings = {"classes": labels, "resolution": side, "seed": FLAGS.seed + SEED}
    schedule = train_mini.schedule(which, side)
    if which == "judge":
        plan, networks = None, judge_networks(len(labels), side)
    else:
        plan = mini.classifier_plan(len(labels), side, WIDTH)
        # So narrow a network underfits 60,000 pictures: dropout would only take from it.
        networks = mini_classifier.plan_networks(plan, dropout=0.0)
    average = mini_classifier.fit(networks, which, settings, schedule, train, valid, out)
    folded = mini_classifier.folded(average)
    measured, top1 = look_at(valid, folded, plan, side)
    record = {
        "labels": labels,
        "resolution": side,
        "top1": top1,
        "command": command(schedule, training.steps_of(which, schedule, out)),
        "minutes": round(logged_seconds(out / f"{which}.log") / 60, 1),
    }
    if which == "scenes":
        record |= {"width": WIDTH, "quantiles": list(mini_export.QUANTILES)}
    shipped = judge.PATH if which == "judge" else zoo.FOLDER / "mini_scenes.safetensors"
    path = pathlib.Path(FLAGS.export or shipped)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = training.flat(folded) | measured
    safetensors.numpy.save_file(tensors, path, {"record": json.dumps(record)})
    print(f"{path}  {path.stat().st_size / 2**20:.2f} MiB  top-1 {top1:.4f}")


def judge_networks(classes, resolution):
    """(network as trained, network as exported)."""
    shape = (judge.WIDTHS_64, judge.BLOCKS_64) if resolution == 64 else ()
    kinds = {"batch_norm": True, "dropout": 0.2}, {}
    return tuple(judge.Judge(classes, *shape, **kind) for kind in kinds)


def look_at(valid, params, plan, side):
    """({natural/LAYER: percentiles of its units}, top-1) over 8-bit pictures of the valid split.

    plan: of a `Classifier`; None is the judge, none of whose units is ever constrained.
    """
    images, labels = valid
    resize = jax.jit(lambda x: jnp.round(mini_classifier.resize(x, side) * 255).astype(jnp.uint8))
    small = np.concatenate([resize(images[i : i + 250]) for i in range(0, len(images), 250)])
    if plan is None:
        _, logits = judge.look(params, small)
        return {}, float((logits.argmax(-1) == labels).mean())

    @jax.jit
    def run(x):
        outputs = Classifier(plan).apply({"params": params}, mini.preprocess(x / 255.0))
        return {layer: outputs[layer] for layer in LAYERS}

    parts = [jax.device_get(run(small[i : i + 250])) for i in range(0, len(small), 250)]
    outputs = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    measured = {
        f"natural/{layer}": np.percentile(values, mini_export.QUANTILES, axis=0).astype(np.float16)
        for layer, values in outputs.items()
    }
    return measured, float((outputs["fc8"].argmax(-1) == labels).mean())


def command(schedule, steps):
    """What to type to train the same again; DIR is the folder of data."""
    asked = {"steps": steps} | {key: schedule[key] for key in ("batch", "learning_rate")}
    if FLAGS.resolution != "32":
        asked = {"resolution": FLAGS.resolution} | asked
    flags = " ".join(f"--{key}={value}" for key, value in asked.items())
    return (
        f"python -m experiments.train_second --which={FLAGS.which} --data=DIR {flags}"
        f" --seed={FLAGS.seed}"
    )


def logged_seconds(path):
    """Seconds of training, over every start that `checkpoints.Log` wrote down in `path`."""
    seconds = [float(line.split()[2]) for line in path.read_text().splitlines()]
    # Each start counts from 0 again, so its last line is one that no greater time follows.
    return sum(now for now, then in zip(seconds, [*seconds[1:], 0.0], strict=True) if now > then)


if __name__ == "__main__":
    FLAGS.set_default("out", "runs/second")
    app.run(main)
