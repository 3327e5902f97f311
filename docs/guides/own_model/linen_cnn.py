"""A Flax linen CNN: inverse-set sample --model=docs/guides/own_model/linen_cnn.py:model ..."""

import flax.linen as nn
import jax
import shapes

import inverse_set


class CNN(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (3, 3), strides=2, name="conv1")(x))
        x = nn.relu(nn.Conv(16, (3, 3), strides=2, name="conv2")(x))
        x = nn.relu(nn.Dense(32, name="hidden")(x.reshape(len(x), -1)))
        return nn.Dense(3, name="logits")(x)


def model():
    images, classes = shapes.pictures()
    generate, codes = shapes.decoder(images)
    network = CNN()
    variables = network.init(jax.random.key(0), images[:1])
    variables = shapes.trained(variables, network.apply, images, classes)

    layers = inverse_set.from_linen(network, variables)
    labels = {"logits": shapes.NAMES}
    own = inverse_set.Model(
        generate, layers, "hidden", shapes.CODES, name="linen_cnn", labels=labels
    )
    return inverse_set.measure(own, images, codes)
