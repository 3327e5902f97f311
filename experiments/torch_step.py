"""The K-code gradient step in eager PyTorch, with one shared forward pass and written naively.

Weights are ours, `{layer: {"kernel", "bias"}}`; `convert` lays them out as PyTorch wants them.
"""

import torch
import torch.nn.functional as F

POOLS = {"conv1", "conv2", "conv5"}  # layers that are pooled
NORMS = {"conv1", "conv2"}  # and then normalised
CONVOLUTIONS = {  # stride, padding, groups
    "conv1": (4, 0, 1),
    "conv2": (1, 2, 2),
    "conv3": (1, 1, 1),
    "conv4": (1, 1, 2),
    "conv5": (1, 1, 2),
}
DECONVOLUTIONS = {  # stride, padding
    "deconv5": (2, 1),
    "conv5_1": (1, 1),
    "deconv4": (2, 1),
    "conv4_1": (1, 1),
    "deconv3": (2, 1),
    "conv3_1": (1, 1),
    "deconv2": (2, 1),
    "deconv1": (2, 1),
    "deconv0": (2, 1),
}
MEAN = (104.006, 116.669, 122.679)  # BGR, 0..255


def _tensor(array):
    return torch.tensor(array).contiguous()


def _channels_first(kernel, side, axis):
    """Rows or columns of an inner product from H, W, C to C, H, W order."""
    shape = list(kernel.shape)
    shape[axis : axis + 1] = [side, side, -1]
    kernel = kernel.reshape(shape)
    order = list(range(kernel.ndim))
    order[axis : axis + 3] = [axis + 2, axis, axis + 1]
    flat = [n for i, n in enumerate(shape) if not axis <= i < axis + 3]
    flat.insert(axis, -1)
    return kernel.transpose(order).reshape(flat)


def convert(generator, classifier):
    """Our weights as NumPy arrays -> {layer: (weight, bias)} of both networks, no gradients."""
    weights = {}
    for name, layer in {**generator, **classifier}.items():
        kernel, bias = layer["kernel"], layer["bias"]
        if name in DECONVOLUTIONS:
            kernel = kernel[::-1, ::-1].transpose(2, 3, 0, 1)
        elif name in CONVOLUTIONS:
            kernel = kernel.transpose(3, 2, 0, 1)
        else:
            if name == "fc6":
                kernel = _channels_first(kernel, 6, 0)
            if name == "defc5":
                kernel = _channels_first(kernel, 4, 1)
                bias = _channels_first(bias, 4, 0)
            kernel = kernel.T
        weights[name] = _tensor(kernel.copy()), _tensor(bias.copy())
    return weights


def generate(weights, codes, slope=0.3):
    """codes `[K, 4096]` -> BGR images `[K, 3, 256, 256]`, mean subtracted."""
    x = codes
    for name in ("defc7", "defc6", "defc5"):
        x = F.leaky_relu(F.linear(x, *weights[name]), slope)
    x = x.reshape(len(x), 256, 4, 4)
    for name, (stride, padding) in DECONVOLUTIONS.items():
        x = F.conv_transpose2d(x, *weights[name], stride=stride, padding=padding)
        if name != "deconv0":
            x = F.leaky_relu(x, slope)
    return x


def finish(raw):
    """Whole numbers from 0 to 255 in the scale of the network; the gradient passes straight."""
    mean = torch.tensor(MEAN, dtype=raw.dtype).reshape(3, 1, 1)
    finished = (raw.detach() + mean).clamp(0, 255).round() - mean
    return raw + (finished - raw.detach())


def classify(weights, images, until="fc8"):
    """images `[K, 3, 256, 256]`, cropped to 227 -> (fc6 after its ReLU, fc8) or the first alone."""
    x = images[:, :, 14:241, 14:241]
    for name, (stride, padding, groups) in CONVOLUTIONS.items():
        x = F.relu(F.conv2d(x, *weights[name], stride=stride, padding=padding, groups=groups))
        if name in POOLS:
            x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        if name in NORMS:
            x = F.local_response_norm(x, 5, 1e-4, 0.75, 1.0)
    features = F.relu(F.linear(x.flatten(1), *weights["fc6"]))
    if until == "fc6":
        return features
    x = F.relu(F.linear(features, *weights["fc7"]))
    return features, F.linear(x, *weights["fc8"])


def residual(logits, unit, low, high, penalty):
    """mu / 2 r^2, r the distance of one logit to its interval, summed over the codes."""
    f = logits[:, unit]
    return (penalty / 2 * (f - f.detach().clamp(low, high)) ** 2).sum()


def shared(weights, codes, unit, low, high, penalty, weight):
    """Gradient `[K, 4096]`: one forward pass, pair sum in O(K)."""
    codes = codes.detach().requires_grad_()
    features, logits = classify(weights, finish(generate(weights, codes)))
    spread = 2 * len(codes) * ((features - features.mean(0)) ** 2).sum()
    loss = residual(logits, unit, low, high, penalty) - weight * spread
    return torch.autograd.grad(loss, codes)[0]


def naive(weights, codes, unit, low, high, penalty, weight):
    """The same with a pass for the features, one for the logit, and all pairwise differences."""
    codes = codes.detach().requires_grad_()
    features = classify(weights, finish(generate(weights, codes)), until="fc6")
    spread = ((features[:, None] - features[None]) ** 2).sum()
    _, logits = classify(weights, finish(generate(weights, codes)))
    loss = residual(logits, unit, low, high, penalty) - weight * spread
    return torch.autograd.grad(loss, codes)[0]
