"""Caffe's AlexNet family and the generator that inverts CaffeNet's fc6, at full size, as data."""

import importlib.resources

from inverse_set.models.classifier import Conv, Dense, Norm, Pool
from inverse_set.models.generator import Deconv, Plan
from inverse_set.models.pixels import Pixels

MEAN = (104.006, 116.669, 122.679)  # ImageNet's, BGR, of 255
SIZE = 227  # pixels a side that the classifiers read
RESOLUTION = 256  # pixels a side that the generator draws
CODES = 4096  # entries of a code
CONTRAST = 64.0  # rough standard deviation of a picture's values; scales untrained weights
CODE_LIMIT = 30.0  # codes are clipped to [0, 30] by the generator's authors
PAIR_SQUARE = 5.4**2 * 4096  # mean squared distance between two natural pictures' fc6


def _plan(classes, norm_first=False):
    """CaffeNet pools, then normalises; AlexNet normalises, then pools."""

    def reduce(number):
        pair = (Norm(f"norm{number}"), Pool(f"pool{number}"))
        return pair if norm_first else pair[::-1]

    return (
        Conv("conv1", 96, 11, 4),
        *reduce(1),
        Conv("conv2", 256, 5, 1, 2, 2),
        *reduce(2),
        Conv("conv3", 384, 3, 1, 1),
        Conv("conv4", 384, 3, 1, 1, 2),
        Conv("conv5", 256, 3, 1, 1, 2),
        Pool("pool5"),
        Dense("fc6", 4096),
        Dense("fc7", 4096),
        Dense("fc8", classes),
    )


CLASSIFIERS = {
    "caffenet": _plan(1000),
    "alexnet": _plan(1000, norm_first=True),
    "places205": _plan(205),
}
LABELS = {"caffenet": "imagenet", "alexnet": "imagenet", "places205": "places205"}

FC6_GENERATOR = Plan(
    dense=(("defc7", 4096), ("defc6", 4096), ("defc5", 4096)),
    spatial=4,
    deconvs=(
        Deconv("deconv5", 256),
        Deconv("conv5_1", 512, 3, 1, 1),
        Deconv("deconv4", 256),
        Deconv("conv4_1", 256, 3, 1, 1),
        Deconv("deconv3", 128),
        Deconv("conv3_1", 128, 3, 1, 1),
        Deconv("deconv2", 64),
        Deconv("deconv1", 32),
        Deconv("deconv0", 3),
    ),
)
DRAWN = Pixels(255.0, MEAN, bgr=True)  # the generator's own scale


def pixels(mean=MEAN):
    """What the classifiers read: BGR, 0 to 255 less the mean, the middle 227 pixels."""
    return Pixels(255.0, tuple(mean), bgr=True, size=SIZE)


def labels(name):
    """Names of the fc8 units of a classifier, synonyms separated by commas."""
    folder = importlib.resources.files("inverse_set.models") / "labels"
    return tuple((folder / f"{LABELS[name]}.txt").read_text("utf-8").splitlines())
