"""An MLP on tables, whose inputs are no pictures: the code is the row itself, held to its range.

    inverse-set sample --model=docs/guides/own_model/tabular_mlp.py:model \
        --constraint=logits/risky:1:2 --out=risky
"""

import flax.linen as nn
import jax
import numpy as np
import shapes

import inverse_set


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(32, name="hidden")(x))
        return nn.Dense(2, name="logits")(x)


def model():
    rows = np.random.default_rng(0).uniform(-1, 1, (800, 6)).astype(np.float32)
    classes = (rows[:, 0] * rows[:, 1] + rows[:, 2] > 0.2).astype(int)
    network = MLP()
    variables = network.init(jax.random.key(0), rows[:1])
    variables = shapes.trained(variables, network.apply, rows, classes)

    layers = inverse_set.from_linen(network, variables)
    labels = {"logits": ("safe", "risky")}
    own = inverse_set.Model(
        inverse_set.as_is, layers, inverse_set.as_is, 6, name="tabular_mlp", labels=labels
    )
    return inverse_set.measure(own, rows, codes=rows)
