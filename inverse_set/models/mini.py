"""The bundled pair `mini`: CaffeNet's plan in small and a generator that inverts its fc6."""

from inverse_set.models.classifier import Conv, Dense, Pool
from inverse_set.models.generator import Deconv, Plan
from inverse_set.models.pixels import Pixels, from_pictures

PIXELS = Pixels(4.0, (2.0, 2.0, 2.0))  # the classifier reads [-2, 2]
DRAWN = Pixels(1.0)  # the generator draws [0, 1]


def classifier_plan(classes, resolution=32, width=32):
    """CaffeNet's layers; everything after conv1 and pool1 works at a quarter of 64 or half of 32.

    classes: outputs of fc8.  resolution: 32 or 64 pixels.  width: channels of conv1.
    """
    small = resolution == 32
    return (
        Conv("conv1", width, 3, 1, 1) if small else Conv("conv1", width, 5, 2, 2),
        Pool("pool1"),
        Conv("conv2", 3 * width, 3, 1, 1),
        Pool("pool2"),
        Conv("conv3", 5 * width, 3, 1, 1),
        Conv("conv4", 5 * width, 3, 1, 1),
        Conv("conv5", 4 * width, 3, 1, 1),
        Pool("pool5"),
        Dense("fc6", 32 * width),
        Dense("fc7", 16 * width),
        Dense("fc8", classes),
    )


def generator_plan(resolution=32, width=32):
    """fc6 -> picture: two inner products, then doublings 4/2/1, all but the last with a 3/1/1.

    The last doubling draws the picture itself, so that no wide layer works at full size.
    """
    doublings = (
        Deconv("deconv5", 4 * width),
        Deconv("conv5_1", 4 * width, 3, 1, 1),
        Deconv("deconv4", 3 * width),
        Deconv("conv4_1", 3 * width, 3, 1, 1),
    )
    if resolution == 64:
        doublings += (Deconv("deconv3", 2 * width), Deconv("conv3_1", width, 3, 1, 1))
    return Plan(
        dense=(("defc6", 32 * width), ("defc5", 16 * 5 * width)),
        spatial=4,
        deconvs=(*doublings, Deconv("deconv0", 3)),
        sigmoid=True,
    )


def preprocess(images):
    """RGB images in [0, 1] -> the classifier's own scale, [-2, 2]."""
    return from_pictures(PIXELS, images)
