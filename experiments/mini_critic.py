"""The discriminator of the generator's training.  It sees pictures and codes."""

import flax.linen as nn
import jax

from inverse_set.models import layers

WIDENING = (2, 3, 5, 8)  # channels of the convolutions, in units of `width`


class Discriminator(nn.Module):
    """(images in [-2, 2] `[N, H, W, 3]`, codes `[N, D]`) -> how real and how fitting, `[N]`."""

    width: int

    @nn.compact
    def __call__(self, x, codes):
        def conv(x, number):
            features = WIDENING[number - 1] * self.width
            shape = (3, 3, x.shape[-1], features)
            kernel = self.param(f"conv{number}", nn.initializers.he_normal(), shape)
            bias = self.param(f"conv{number}_bias", nn.initializers.zeros, (features,))
            return jax.nn.leaky_relu(layers.conv2d(x, kernel, 1, 1) + bias, 0.2)

        x = conv(conv(fold(x), 1), 2)
        number = 3
        while x.shape[1] > 8:
            x = conv(halve(x), number)
            number += 1
        x = halve(x)
        x = jax.nn.leaky_relu(nn.Dense(256, name="dense")(x.reshape(x.shape[0], -1)), 0.2)
        view = nn.Dense(256, use_bias=False, name="code")(codes)
        return nn.Dense(1, name="score")(x)[:, 0] + (x * view).sum(-1) / 16


def fold(x):
    """Squares of 2x2 pixels into channels: `[N, 2H, 2W, C] -> [N, H, W, 4C]`."""
    n, height, width, channels = x.shape
    x = x.reshape(n, height // 2, 2, width // 2, 2, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, height // 2, width // 2, -1)


def halve(x):
    """Means of 2x2 pixels."""
    n, height, width, channels = x.shape
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).mean((2, 4))
