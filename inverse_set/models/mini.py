"""The bundled pair `mini`: CaffeNet's plan in small and a generator that inverts its fc6."""

from inverse_set.models.classifier import Conv, Dense, Pool
from inverse_set.models.generator import Deconv, Plan
from inverse_set.models.pixels import Pixels, from_pictures

SIDE = 64  # pixels
WIDEST = 1024  # of a plan; fc6 has 32 times as many units
PIXELS = Pixels(4.0, (2.0, 2.0, 2.0))  # the classifier reads [-2, 2]
DRAWN = Pixels(1.0)  # the generator draws [0, 1]


def classifier_plan(classes, width=32):
    """CaffeNet's layers: conv3 to conv5 work at 16x16 of 64 pixels, fc6 reads 4x4.

    classes: outputs of fc8.  width: fc6 has 32 times as many units.  conv1 keeps stride 1, since
    what a stride loses there no later layer finds again; pool5 is the wider one in exchange, or
    fc6 would hold four times the weights.
    """
    return (
        Conv("conv1", 3 * width // 2, 5, 1, 2),
        Pool("pool1"),
        Conv("conv2", 3 * width, 3, 1, 1),
        Pool("pool2"),
        Conv("conv3", 6 * width, 3, 1, 1),
        Conv("conv4", 6 * width, 3, 1, 1),
        Conv("conv5", 6 * width, 3, 1, 1),
        Pool("pool5", 5, 4),
        Dense("fc6", 32 * width),
        Dense("fc7", 32 * width),
        Dense("fc8", classes),
    )


def generator_plan(width=32, residual=False):
    """fc6 -> picture: two inner products, then doublings 4/2/1, each followed by a 3/1/1.

    The last doubling has a few channels, and a 3/1/1, whose taps reach every phase, draws.
    residual: whether another 3/1/1 refines what is there at 16, 32 and 64 pixels.
    """
    deconvs = (
        Deconv("deconv5", 6 * width),
        Deconv("conv5_1", 6 * width, 3, 1, 1),
        Deconv("deconv4", 4 * width),
        Deconv("conv4_1", 4 * width, 3, 1, 1),
        Deconv("conv4_2", 4 * width, 3, 1, 1, residual=True),
        Deconv("deconv3", 2 * width),
        Deconv("conv3_1", 2 * width, 3, 1, 1),
        Deconv("conv3_2", 2 * width, 3, 1, 1, residual=True),
        Deconv("deconv2", width),
        Deconv("conv2_1", width, 3, 1, 1, residual=True),
        Deconv("deconv0", 3, 3, 1, 1),
    )
    return Plan(
        dense=(("defc6", 32 * width), ("defc5", 16 * 4 * width)),
        spatial=4,
        deconvs=tuple(layer for layer in deconvs if residual or not layer.residual),
        sigmoid=True,
    )


def preprocess(images):
    """RGB images in [0, 1] -> the classifier's own scale, [-2, 2]."""
    return from_pictures(PIXELS, images)
