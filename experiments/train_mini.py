"""Trains the bundled model `mini` and its companions on Tiny ImageNet, and exports them.

    T="python -m experiments.train_mini --data=DIR --out=runs/mini"
    $T --stage=classifier
    $T --stage=generator      # inverts the classifier
    $T --stage=generator --start=inverse_set/models/weights/mini_generator.safetensors --rate=0.4
                              # the same, from the weights that ship
    $T --stage=judge          # a second opinion, of another architecture, for the experiments
    $T --stage=scenes         # the classifier's plan in small, on kinds of scenes
    $T --stage=export

All 200 classes at 64x64 pixels, in PyTorch (the package runs what comes out in JAX), on a GPU where
there is one, and meant for two cores, where each stage is an hour or two.  Every stage goes on from
its newest checkpoint in --out and repeats itself exactly (on a CPU).  The next stage reads no more
of it than NAME.safetensors, its averaged weights in fp16: --stage=export needs only those.

The generator's rate stands until its last --fall steps.  To end it earlier than was said, stop it
and go on with --steps=N and --fall=M, M steps from the checkpoint's to N.
"""

import pathlib
import sys
import time

import torch
from absl import app, flags

from experiments import (
    judge,
    mini_classifier,
    mini_export,
    mini_generator,
    nets,
    scenes,
    tiny_imagenet,
)
from inverse_set.models import mini

FLAGS = flags.FLAGS
FITS = ("classifier", "judge", "scenes")
# Passes over the data at 32, 48 and 64 pixels.
PASSES = {
    "classifier": "9,6,3",
    "judge": "6,4,2",
    "scenes": "4,3,2",
}
BATCH = {"classifier": 256, "judge": 256, "scenes": 256, "generator": 48}
SEED = 1000  # added to --seed for judge and scenes: neither starts where the classifier did
SCENES_WIDTH = 16

flags.DEFINE_enum("stage", "classifier", (*FITS, "generator", "export"), "what to do")
flags.DEFINE_string("data", None, "folder of Tiny ImageNet", required=True)
flags.DEFINE_string("out", "runs/mini", "folder of checkpoints and of the exported weights")
flags.DEFINE_list("classes", None, "label numbers; one number N: the first N; all")
flags.DEFINE_integer("width", 32, "a thirty-second of fc6's units; everything else follows")
flags.DEFINE_list("passes", None, "of a classifier over the data, at 32, 48 and 64 pixels")
flags.DEFINE_integer("steps", 20000, "of the generator", lower_bound=1)
flags.DEFINE_integer("fall", 2000, "the generator's last steps, its rate falling", lower_bound=1)
flags.DEFINE_string("start", None, "file of weights that a classifier or the generator starts from")
flags.DEFINE_float("rate", 1.0, "multiplies the peak rates", lower_bound=0)
flags.DEFINE_float("mixed", 0.25, "share of a classifier's steps with cutmix", 0, 1)
flags.DEFINE_float("smallest", 0.5, "side of a classifier's smallest crop, of the picture's", 0, 1)
flags.DEFINE_integer("batch", None, "pictures a step", lower_bound=2)
flags.DEFINE_integer("seed", 0, "of initial weights, data order and augmentation")
flags.DEFINE_integer("checkpoint_every", 200, "steps between checkpoints", lower_bound=1)
flags.DEFINE_integer("threads", 2, "of the CPU", lower_bound=1)


def chosen_classes(known):
    """Label numbers.  known: how many there are."""
    numbers = [int(number) for number in FLAGS.classes or [known]]
    return list(range(numbers[0])) if len(numbers) == 1 else numbers


def network_and_data(stage, names):
    """(network to train, names of its classes, training data, valid data)."""
    classes = chosen_classes(len(names))
    labels = [names[label][1] for label in classes]
    if stage == "scenes":
        classes = [label for label in sorted(scenes.number_of()) if label < len(names)]
        labels = list(scenes.SCENES)
    data = [tiny_imagenet.load(FLAGS.data, split, classes) for split in ("train", "valid")]
    if stage == "scenes":
        data = [scenes.relabelled(*pair, classes) for pair in data]
    torch.manual_seed(FLAGS.seed if stage == "classifier" else FLAGS.seed + SEED)
    if stage == "judge":
        return nets.Judge(len(labels), judge.WIDTHS, judge.BLOCKS, 0.2), labels, *data
    # So narrow a network as the scenes' underfits: dropout would only take from it.
    width, dropout = (SCENES_WIDTH, 0.0) if stage == "scenes" else (FLAGS.width, 0.2)
    plan = mini.classifier_plan(len(labels), width)
    net = nets.Classifier(plan, mini.SIDE, dropout, mini_classifier.LAST_POOLS)
    return net, labels, *data


def main(_):
    torch.set_num_threads(FLAGS.threads)
    stage, begun = FLAGS.stage, time.monotonic()
    names = tiny_imagenet.class_names(FLAGS.data)
    out = pathlib.Path(FLAGS.out)
    out.mkdir(parents=True, exist_ok=True)
    common = {
        "batch": FLAGS.batch or BATCH.get(stage),
        "seed": FLAGS.seed if stage in ("classifier", "generator") else FLAGS.seed + SEED,
        "every": FLAGS.checkpoint_every,
        "rate": FLAGS.rate,
        "start": FLAGS.start and pathlib.Path(FLAGS.start),
        "out": out,
    }
    if stage in FITS:
        net, labels, train, valid = network_and_data(stage, names)
        print(f"{len(train[1])} pictures loaded after {time.monotonic() - begun:.0f} s", flush=True)
        schedule = {
            "passes": [float(number) for number in FLAGS.passes or PASSES[stage].split(",")],
            "mixed": FLAGS.mixed,
            "smallest": FLAGS.smallest,
        }
        mini_classifier.fit(stage, net, train=train, valid=valid, **schedule, **common)
        if stage != "classifier":
            mini_export.second(stage, labels, SCENES_WIDTH, valid, out)
        return
    classes = chosen_classes(len(names))
    train, valid = (tiny_imagenet.load(FLAGS.data, split, classes) for split in ("train", "valid"))
    if stage == "export":
        wordnet, labels = zip(*(names[label] for label in classes), strict=True)
        sys.exit(mini_export.pair(labels, wordnet, FLAGS.width, train, valid, out))
    schedule = {"steps": FLAGS.steps, "fall": FLAGS.fall}
    mini_generator.fit(len(classes), FLAGS.width, train=train, valid=valid, **schedule, **common)


if __name__ == "__main__":
    app.run(main)
