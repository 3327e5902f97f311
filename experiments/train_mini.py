"""Trains the bundled model `mini` on Tiny ImageNet and exports it.

    python -m experiments.train_mini --stage=classifier --data=DIR --out=runs/mini
    python -m experiments.train_mini --stage=generator  --data=DIR --out=runs/mini
    python -m experiments.train_mini --stage=export     --data=DIR --out=runs/mini

Every stage resumes from its newest checkpoint in --out and repeats itself exactly.
"""

import pathlib

from absl import app, flags

from experiments import tiny_imagenet

FLAGS = flags.FLAGS
# Forty vivid classes that differ in colour and shape.
VIVID = (
    "0,1,2,13,14,18,21,26,34,36,43,44,45,50,57,58,61,66,71,81,"
    "91,103,108,115,145,153,157,164,165,166,178,183,184,186,188,189,191,193,194,196"
)
STAGES = ("classifier", "generator", "export")

flags.DEFINE_enum("stage", "classifier", STAGES, "what to do")
flags.DEFINE_string("data", None, "folder of Tiny ImageNet", required=True)
flags.DEFINE_string("out", "runs/mini", "folder of checkpoints and of the exported weights")
flags.DEFINE_string("classes", VIVID, "label numbers, or one number N for the first N labels")
flags.DEFINE_enum("resolution", "32", ["32", "64"], "pixels a side")
flags.DEFINE_integer("width", 32, "channels of conv1; everything else follows")
flags.DEFINE_integer("steps", 3000, "optimiser steps of the stage", lower_bound=1)
flags.DEFINE_integer("batch", 128, "pictures a step", lower_bound=2)
flags.DEFINE_float("learning_rate", 2e-3, "peak learning rate")
flags.DEFINE_integer("seed", 0, "of initial weights, data order and augmentation")
flags.DEFINE_integer("log_every", 50, "steps between two lines of losses", lower_bound=1)
flags.DEFINE_integer("checkpoint_every", 500, "steps between checkpoints", lower_bound=1)


def chosen_classes():
    numbers = [int(number) for number in FLAGS.classes.split(",")]
    return list(range(numbers[0])) if len(numbers) == 1 else numbers


def main(_):
    classes = chosen_classes()
    out = pathlib.Path(FLAGS.out)
    out.mkdir(parents=True, exist_ok=True)
    names = tiny_imagenet.class_names(FLAGS.data)
    settings = {
        "classes": classes,
        "names": [names[label][1] for label in classes],
        "wordnet": [names[label][0] for label in classes],
        "resolution": int(FLAGS.resolution),
        "width": FLAGS.width,
        "seed": FLAGS.seed,
    }
    train = tiny_imagenet.load(FLAGS.data, "train", classes)
    valid = tiny_imagenet.load(FLAGS.data, "valid", classes)
    if FLAGS.stage == "export":
        from experiments import mini_export

        mini_export.export(settings, valid, out)
        return
    schedule = {
        "steps": FLAGS.steps,
        "batch": FLAGS.batch,
        "learning_rate": FLAGS.learning_rate,
        "log_every": FLAGS.log_every,
        "checkpoint_every": FLAGS.checkpoint_every,
    }
    if FLAGS.stage == "classifier":
        from experiments import mini_classifier as stage
    else:
        from experiments import mini_generator as stage
    stage.train(settings, schedule, train, valid, out)


if __name__ == "__main__":
    app.run(main)
