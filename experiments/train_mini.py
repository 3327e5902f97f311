"""Trains the bundled model `mini` on Tiny ImageNet and exports it.

    python -m experiments.train_mini --stage=classifier --data=DIR --out=runs/mini
    python -m experiments.train_mini --stage=generator  --data=DIR --out=runs/mini
    python -m experiments.train_mini --stage=export     --data=DIR --out=runs/mini

All 200 classes at 64x64, for one GPU: a teacher, the classifier that learns from it, the generator,
and with the same machinery the judge and the scenes, which have to have the pair's resolution.

    D="--resolution=64 --data=DIR"; T="python -m experiments.train_mini $D --out=runs/mini64"
    $T --stage=teacher --minutes=3; $T --stage=classifier --minutes=5
    $T --stage=generator --minutes=8.5
    S="python -m experiments.train_second $D --out=runs/mini64"
    $S --which=judge --minutes=2.5 --export=runs/mini64/mini_judge.safetensors
    $S --which=scenes --minutes=1.5 --export=runs/mini64/mini_scenes.safetensors
    $T --stage=export

--minutes=M ends a stage before M minutes have passed, loading and compiling counted in; unless
--steps is given, too, the schedule has as many steps as fit, measured first, and at most the
default.  Without --minutes the default is run: 20,000 steps of 512 pictures for the classifier,
40,000 of 128 for the generator.  More time is better spent on those two.  To see the speed first,
add --steps=300 --out=runs/try.

Every stage resumes from its newest checkpoint in --out and repeats itself exactly (on a CPU; a
GPU's sums may differ in order).  A stage that was out of time exits with 75: the same command goes
on.  The next stage reads no more of it than NAME.safetensors, its averaged weights in fp16, so
that those small files are all that has to be carried to another machine; --stage=export needs two
of them, classifier and generator, and no GPU.
"""

import pathlib
import sys

import jax
from absl import app, flags

from experiments import tiny_imagenet, training

FLAGS = flags.FLAGS
# Forty vivid classes that differ in colour and shape.
VIVID = (
    "0,1,2,13,14,18,21,26,34,36,43,44,45,50,57,58,61,66,71,81,"
    "91,103,108,115,145,153,157,164,165,166,178,183,184,186,188,189,191,193,194,196"
)
STAGES = ("teacher", "classifier", "generator", "export")
# (steps, pictures a step, peak learning rate) at 32 pixels, for two cores: minutes, not quality.
SMALL = (3000, 128, 2e-3)
# At 64, for a GPU.  A plain network with mixed pictures gains up to about 100 passes over the
# 100,000 pictures, residual ones have most of it after 30; the adversary wants steps more than it
# wants pictures.  512 pictures fill the device; the rate is the one that did well at 128, since
# Adam's steps need less than the linear rule, and a plain network no more.
LARGE = {
    "teacher": (6000, 512, 2e-3),
    "classifier": (20000, 512, 2e-3),
    "generator": (40000, 128, 1e-3),
    "judge": (6000, 512, 2e-3),
    "scenes": (6000, 256, 3e-3),
}

flags.DEFINE_enum("stage", "classifier", STAGES, "what to do")
flags.DEFINE_string("data", None, "folder of Tiny ImageNet", required=True)
flags.DEFINE_string("out", "runs/mini", "folder of checkpoints and of the exported weights")
flags.DEFINE_string(
    "classes", None, "label numbers, or one number N for the first N; all at 64 pixels, or 40"
)
flags.DEFINE_enum("resolution", "32", ["32", "64"], "pixels a side")
flags.DEFINE_integer("width", 32, "a thirty-second of fc6's units; everything else follows")
flags.DEFINE_integer("steps", None, "optimiser steps of the stage", lower_bound=1)
flags.DEFINE_integer("batch", None, "pictures a step", lower_bound=2)
flags.DEFINE_float("learning_rate", None, "peak learning rate")
flags.DEFINE_float("minutes", None, "stop before as many minutes have passed", lower_bound=0)
flags.DEFINE_integer("seed", 0, "of initial weights, data order and augmentation")
flags.DEFINE_integer("log_every", 50, "steps between two lines of losses", lower_bound=1)
flags.DEFINE_integer("checkpoint_every", None, "steps between checkpoints", lower_bound=1)
flags.DEFINE_enum(
    "precision", None, ["float32", "bfloat16"], "of classifiers' products; bfloat16 on a GPU"
)
flags.DEFINE_bool("loop", None, "many steps in one program; so on a GPU")

START = training.clock()


def chosen_classes(known):
    """Label numbers.  known: all that there are."""
    if FLAGS.classes is None and FLAGS.resolution == "64":
        return list(known)
    numbers = [int(number) for number in (FLAGS.classes or VIVID).split(",")]
    return list(range(numbers[0])) if len(numbers) == 1 else numbers


def schedule(name, resolution):
    """What `training.run` and the stages need to know, from the flags and the defaults."""
    steps, batch, rate = SMALL if resolution == 32 else LARGE[name]
    looped = training.on_accelerator() if FLAGS.loop is None else FLAGS.loop
    every = 5000 if looped else 500
    return {
        "steps": FLAGS.steps if FLAGS.steps or FLAGS.minutes is not None else steps,
        "default_steps": steps,
        "batch": FLAGS.batch or batch,
        "learning_rate": FLAGS.learning_rate or rate,
        "log_every": FLAGS.log_every,
        "checkpoint_every": FLAGS.checkpoint_every or every,
        "deadline": None if FLAGS.minutes is None else START + 60 * FLAGS.minutes,
        "precision": FLAGS.precision or ("bfloat16" if looped else "float32"),
        "looped": looped,
    }


def main(_):
    names = tiny_imagenet.class_names(FLAGS.data)
    classes = chosen_classes(range(len(names)))
    out = pathlib.Path(FLAGS.out)
    out.mkdir(parents=True, exist_ok=True)
    settings = {
        "classes": classes,
        "names": [names[label][1] for label in classes],
        "wordnet": [names[label][0] for label in classes],
        "resolution": int(FLAGS.resolution),
        "width": FLAGS.width,
        "seed": FLAGS.seed,
    }
    from experiments import mini_classifier, mini_export, mini_generator

    print(mini_export.sizes(settings))
    valid = tiny_imagenet.load(FLAGS.data, "valid", classes)
    if FLAGS.stage == "export":
        sys.exit(mini_export.export(settings, valid, out))
    train = tiny_imagenet.load(FLAGS.data, "train", classes)
    took = training.clock() - START
    print(f"{len(train[1])} pictures loaded {took:.0f} s after the start; {jax.devices()[0]}")
    stage = {
        "teacher": mini_classifier.train_teacher,
        "classifier": mini_classifier.train,
        "generator": mini_generator.train,
    }[FLAGS.stage]
    stage(settings, schedule(FLAGS.stage, settings["resolution"]), train, valid, out)


if __name__ == "__main__":
    app.run(main)
