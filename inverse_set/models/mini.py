"""The bundled pair `mini`: CaffeNet's plan in small and a generator that inverts its fc6."""

from inverse_set.models.classifier import Conv, Dense, Pool
from inverse_set.models.generator import Deconv, Plan
from inverse_set.models.pixels import Pixels, from_pictures

PIXELS = Pixels(4.0, (2.0, 2.0, 2.0))  # the classifier reads [-2, 2]
DRAWN = Pixels(1.0)  # the generator draws [0, 1]


def _large(resolution):
    if resolution not in (32, 64):
        raise ValueError(f"expected a resolution of 32 or 64 pixels, got {resolution}")
    return resolution == 64


def classifier_plan(classes, resolution=32, width=32):
    """CaffeNet's layers: conv3 to conv5 work at 8x8 of 32 pixels or at 16x16 of 64, fc6 reads 4x4.

    classes: outputs of fc8.  resolution: 32 or 64 pixels.  width: fc6 has 32 times as many units.
    At 64 pixels conv1 keeps stride 1, since what a stride loses there no later layer finds again;
    pool5 is the wider one in exchange, or fc6 would hold four times the weights.
    """
    if _large(resolution):
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
    return (
        Conv("conv1", width, 3, 1, 1),
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
    """fc6 -> picture: two inner products, then doublings 4/2/1, each followed by a 3/1/1.

    At 32 pixels the last doubling draws the picture itself, so that no wide layer works at full
    size; at 64 it has a few channels, and a 3/1/1, whose taps reach every phase, draws.
    """
    if _large(resolution):
        return Plan(
            dense=(("defc6", 32 * width), ("defc5", 16 * 4 * width)),
            spatial=4,
            deconvs=(
                Deconv("deconv5", 6 * width),
                Deconv("conv5_1", 6 * width, 3, 1, 1),
                Deconv("deconv4", 4 * width),
                Deconv("conv4_1", 4 * width, 3, 1, 1),
                Deconv("deconv3", 2 * width),
                Deconv("conv3_1", 2 * width, 3, 1, 1),
                Deconv("deconv2", width),
                Deconv("deconv0", 3, 3, 1, 1),
            ),
            sigmoid=True,
        )
    return Plan(
        dense=(("defc6", 32 * width), ("defc5", 16 * 5 * width)),
        spatial=4,
        deconvs=(
            Deconv("deconv5", 4 * width),
            Deconv("conv5_1", 4 * width, 3, 1, 1),
            Deconv("deconv4", 3 * width),
            Deconv("conv4_1", 3 * width, 3, 1, 1),
            Deconv("deconv0", 3),
        ),
        sigmoid=True,
    )


def preprocess(images):
    """RGB images in [0, 1] -> the classifier's own scale, [-2, 2]."""
    return from_pictures(PIXELS, images)
