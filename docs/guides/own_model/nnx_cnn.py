"""A Flax nnx CNN: inverse-set sample --model=docs/guides/own_model/nnx_cnn.py:model ..."""

import shapes
from flax import nnx

import inverse_set


class CNN(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(1, 8, (3, 3), strides=2, rngs=rngs)
        self.conv2 = nnx.Conv(8, 16, (3, 3), strides=2, rngs=rngs)
        self.hidden = nnx.Linear(4 * 4 * 16, 32, rngs=rngs)
        self.logits = nnx.Linear(32, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.conv2(nnx.relu(self.conv1(x))))
        return self.logits(nnx.relu(self.hidden(x.reshape(len(x), -1))))


def model():
    images, classes = shapes.pictures()
    generate, codes = shapes.decoder(images)
    graph, weights = nnx.split(CNN(nnx.Rngs(0)))
    weights = shapes.trained(weights, lambda w, x: nnx.merge(graph, w)(x), images, classes)

    layers = inverse_set.from_nnx(nnx.merge(graph, weights))
    labels = {"logits": shapes.NAMES}
    own = inverse_set.Model(generate, layers, "hidden", shapes.CODES, name="nnx_cnn", labels=labels)
    return inverse_set.measure(own, images, codes)
