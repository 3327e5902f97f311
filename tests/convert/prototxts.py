"""Caffe's definitions of the networks, as prototxt text: written from Caffe's side, by hand.

Every ReLU has a blob of its own, where the released files work in place, so that the values before
and after it can both be read.
"""

import math

# name, outputs, kernel, stride, pad, group
CONVOLUTIONS = (
    ("conv1", 96, 11, 4, 0, 1),
    ("conv2", 256, 5, 1, 2, 2),
    ("conv3", 384, 3, 1, 1, 1),
    ("conv4", 384, 3, 1, 1, 2),
    ("conv5", 256, 3, 1, 1, 2),
)
# name, outputs, kernel, stride, pad
DECONVOLUTIONS = (
    ("deconv5", 256, 4, 2, 1),
    ("conv5_1", 512, 3, 1, 1),
    ("deconv4", 256, 4, 2, 1),
    ("conv4_1", 256, 3, 1, 1),
    ("deconv3", 128, 4, 2, 1),
    ("conv3_1", 128, 3, 1, 1),
    ("deconv2", 64, 4, 2, 1),
    ("deconv1", 32, 4, 2, 1),
    ("deconv0", 3, 4, 2, 1),
)
OUTPUTS = {"caffenet": 1000, "alexnet": 1000, "places205": 205}


def classifier(network, side):
    """The text and the names of the layers, in the order they are computed."""
    parts, bottom = [_input((1, 3, side, side))], "data"
    for name, outputs, kernel, stride, pad, group in CONVOLUTIONS:
        parts.append(
            _layer(name, "Convolution", bottom, _convolution(outputs, kernel, stride, pad, group))
        )
        parts.append(_layer(f"relu{name[-1]}", "ReLU", name))
        bottom = f"relu{name[-1]}"
        for kind in _reductions(network, name[-1]):
            parts.append(_layer(f"{kind}{name[-1]}", *_REDUCTION[kind](bottom)))
            bottom = f"{kind}{name[-1]}"
    for name, outputs in (("fc6", 4096), ("fc7", 4096), ("fc8", OUTPUTS[network])):
        parts.append(_layer(name, "InnerProduct", bottom, _inner_product(outputs)))
        bottom = f"relu{name[-1]}"
        parts += [_layer(bottom, "ReLU", name)] if name != "fc8" else []
    parts.append(_layer("prob", "Softmax", "fc8"))
    return _whole(parts)


def _reductions(network, number):
    if number in "34":
        return ()
    if number == "5":
        return ("pool",)
    return ("norm", "pool") if network == "alexnet" else ("pool", "norm")


_REDUCTION = {
    "pool": lambda bottom: (
        "Pooling",
        bottom,
        "pooling_param { pool: MAX kernel_size: 3 stride: 2 }",
    ),
    "norm": lambda bottom: (
        "LRN",
        bottom,
        "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }",
    ),
}


def generator():
    """The text and the names of the layers; `image` is what it draws."""
    parts, bottom = [_input((1, 4096))], "data"
    for name in ("defc7", "defc6", "defc5"):
        parts.append(_layer(name, "InnerProduct", bottom, _inner_product(4096)))
        parts.append(_leaky(name))
        bottom = f"relu_{name}"
    shape = "reshape_param { shape { dim: 0 dim: 256 dim: 4 dim: 4 } }"
    parts.append(_layer("reshape", "Reshape", bottom, shape))
    bottom = "reshape"
    for name, *sizes in DECONVOLUTIONS:
        parts.append(_layer(name, "Deconvolution", bottom, _convolution(*sizes)))
        parts += [_leaky(name)] if name != "deconv0" else []
        bottom = f"relu_{name}"
    return _whole(parts)


def blobs(network):
    """[(name, kind, kernel shape, outputs)] of the layers with weights, in Caffe's axes."""
    if network == "fc6_generator":
        return _generator_blobs()
    found, channels = [], 3
    for name, outputs, kernel, _, _, group in CONVOLUTIONS:
        shape = (outputs, channels // group, kernel, kernel)
        found.append((name, "convolution", shape, outputs))
        channels = outputs
    channels *= 6 * 6
    for name, outputs in (("fc6", 4096), ("fc7", 4096), ("fc8", OUTPUTS[network])):
        found.append((name, "inner_product", (outputs, channels), outputs))
        channels = outputs
    return found


def _generator_blobs():
    dense = ("defc7", "defc6", "defc5")
    found = [(name, "inner_product", (4096, 4096), 4096) for name in dense]
    channels = 256
    for name, outputs, kernel, _, _ in DECONVOLUTIONS:
        shape = (channels, outputs, kernel, kernel)
        found.append((name, "deconvolution", shape, outputs))
        channels = outputs
    return found


def random_layers(network, random):
    """Yields (name, kind, [kernel, bias]) with values that keep activations at their scale."""
    strides = {name: stride for name, _, _, stride, _ in DECONVOLUTIONS}
    for name, kind, shape, outputs in blobs(network):
        if kind == "deconvolution":
            # Of a deconvolution's kernel an output meets one tap in stride^2.
            terms = shape[0] * math.prod(shape[2:]) / strides[name] ** 2
        else:
            terms = math.prod(shape[1:])
        kernel = random.standard_normal(shape, "f4")
        kernel *= (2 / terms) ** 0.5
        yield name, kind, [kernel, random.standard_normal(outputs, "f4")]


def _input(shape):
    dims = " ".join(f"dim: {size}" for size in shape)
    return "data", f'layer {{ name: "data" type: "Input" top: "data" {_input_param(dims)} }}'


def _input_param(dims):
    return f"input_param {{ shape {{ {dims} }} }}"


def _layer(name, kind, bottom, param=""):
    ends = f'bottom: "{bottom}" top: "{name}"'
    return name, f'layer {{ name: "{name}" type: "{kind}" {ends} {param} }}'


def _leaky(name):
    return _layer(f"relu_{name}", "ReLU", name, "relu_param { negative_slope: 0.3 }")


def _convolution(outputs, kernel, stride, pad, group=1):
    sizes = f"kernel_size: {kernel} stride: {stride} pad: {pad} group: {group}"
    return f"convolution_param {{ num_output: {outputs} {sizes} }}"


def _inner_product(outputs):
    return f"inner_product_param {{ num_output: {outputs} }}"


def _whole(parts):
    names = [name for name, _ in parts if name not in ("data", "reshape")]
    return "\n".join(text for _, text in parts), names
