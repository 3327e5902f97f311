"""The networks as they are trained, in PyTorch, made from the plans by which JAX runs them.

Pictures are `[N, 3, H, W]`, in memory NHWC (channels_last).  `folded` gives the weights in the
layout of the package: kernels HWIO or `[inputs, outputs]`, no normalisation.
"""

import torch
import torch.nn.functional as F
from torch import nn

from inverse_set.models.classifier import Conv, Pool, relu_name

NORMS = nn.BatchNorm2d | nn.BatchNorm1d
LEAST_SLOPE = 0.02


class Layer(nn.Module):
    """A product, the pooling that follows it, batch normalisation and a ReLU.

    A maximum commutes with a map of positive slope, and `positive` keeps the normalisation's
    positive: it may see the pooled values, a quarter of the memory, and be folded all the same.
    """

    def __init__(self, product, pool=None, slope=0.0, residual=False):
        super().__init__()
        features = getattr(product, "out_channels", None) or product.out_features
        norm = nn.BatchNorm1d if isinstance(product, nn.Linear) else nn.BatchNorm2d
        self.product, self.pool, self.slope = product, pool, slope
        self.norm, self.residual = norm(features, momentum=0.05), residual
        if residual:  # as good as absent at first
            nn.init.constant_(self.norm.weight, LEAST_SLOPE)

    def forward(self, x):
        read, x = x, self.product(x)
        if self.pool:
            x = F.max_pool2d(x, *self.pool, ceil_mode=True)
        x = F.leaky_relu(self.norm(x), self.slope)
        return x + read if self.residual else x


class Doubling(nn.ConvTranspose2d):
    """A deconvolution 4/2/1 without a bias that leaves flat ground flat.

    Each of the four phases of its output has taps of its own; of a free kernel each phase also has
    a sum of its own, and that is a checkerboard, which no later layer may know to be one.  Here
    every phase is lowered or raised to their mean.
    """

    def __init__(self, inputs, features):
        super().__init__(inputs, features, 4, 2, 1, bias=False)

    def kernel(self):
        """`[inputs, features, 4, 4]`."""
        taps = self.weight.unflatten(3, (2, 2)).unflatten(2, (2, 2))  # of a phase: axes 2 and 4
        phases = taps.mean((2, 4), keepdim=True)
        return (taps - phases + phases.mean((3, 5), keepdim=True)).flatten(4, 5).flatten(2, 3)

    def forward(self, x):
        return F.conv_transpose2d(x, self.kernel(), stride=2, padding=1)


class Classifier(nn.Module):
    """A plan of `inverse_set.models.classifier` whose convolutions keep the size.

    resolution: pixels a side.  last_pools: {resolution: (window, stride)} of the last pooling, so
    that fc6 reads as many values of smaller pictures.
    """

    def __init__(self, plan, resolution, dropout=0.0, last_pools=None):
        super().__init__()
        self.layers, self.dropout, self.last_pools = nn.ModuleDict(), dropout, last_pools or {}
        self.convs, self.dense, self.poolings = [], [], {}
        channels, side = 3, resolution
        for layer, follows in zip(plan, (*plan[1:], None), strict=True):
            if isinstance(layer, Pool):
                continue
            if isinstance(layer, Conv):
                pool = follows[1:] if isinstance(follows, Pool) else None
                product = nn.Conv2d(
                    channels, layer.features, layer.kernel, padding=layer.padding, bias=False
                )
                self.layers[layer.name] = Layer(product, pool)
                self.convs.append(layer.name)
                if pool:
                    side = -(-(side - pool[0]) // pool[1]) + 1
                    self.poolings[layer.name] = follows.name
            else:
                product = nn.Linear(channels * side**2, layer.features, bias=follows is None)
                self.layers[layer.name] = product if follows is None else Layer(product)
                self.dense.append(layer.name)
                side = 1
            channels = layer.features

    def forward(self, x):
        """Pictures in the classifier's scale -> logits."""
        return self.activations(x)[self.dense[-1]]

    def activations(self, x):
        """{name: values}: pooled ones by the pooling's name, ReLUs' by theirs, and the logits."""
        if x.shape[-1] in self.last_pools:
            self.layers[self.convs[-1]].pool = self.last_pools[x.shape[-1]]
        found = {}
        for name in self.convs:
            x = self.layers[name](x)
            found[self.poolings.get(name, relu_name(name))] = x
        x = x.permute(0, 2, 3, 1).flatten(1)  # fc6 reads rows, columns, channels
        for name in self.dense[:-1]:
            x = found[relu_name(name)] = self.layers[name](x)
            x = F.dropout(x, self.dropout, self.training)
        found[self.dense[-1]] = self.layers[self.dense[-1]](x)
        return found


class Judge(nn.Module):
    """The network of experiments/judge.py: of any resolution."""

    def __init__(self, classes, widths, blocks, dropout=0.0):
        super().__init__()
        self.layers, self.dropout = nn.ModuleDict(), dropout

        def add(name, inputs, features, stride=1):
            conv = nn.Conv2d(inputs, features, 3, stride, padding=1, bias=False)
            self.layers[name] = Layer(conv)

        add("stem", 3, widths[0] // 2)
        inputs = widths[0] // 2
        for stage, width in enumerate(widths):
            add(f"down{stage}", inputs, width, 2)
            for block in range(blocks):
                add(f"residual{stage}" + (f"_{block}" if block else ""), width, width)
            inputs = width
        self.layers["fc8"] = nn.Linear(inputs, classes)

    def forward(self, x):
        for name, layer in self.layers.items():
            if name == "fc8":
                x = F.dropout(x.mean((2, 3)), self.dropout, self.training)
            x = x + layer(x) if name.startswith("residual") else layer(x)
        return x


class Generator(nn.Module):
    """A plan of `inverse_set.models.generator`; draws in [0, 1]."""

    def __init__(self, plan, inputs):
        super().__init__()
        self.layers, self.plan = nn.ModuleDict(), plan
        for name, features in plan.dense:
            product = nn.Linear(inputs, features, bias=False)
            self.layers[name], inputs = Layer(product, slope=plan.slope), features
        inputs //= plan.spatial**2
        for layer in plan.deconvs:
            if layer is plan.deconvs[-1]:
                product = nn.Conv2d(inputs, layer.features, layer.kernel, padding=layer.padding)
                self.layers[layer.name] = product
                break
            sizes = layer.kernel, layer.stride, layer.padding
            if layer.stride == 1:
                product = nn.Conv2d(inputs, layer.features, *sizes, bias=False)
            elif layer is plan.deconvs[0]:  # its input is flat nowhere: each place has its weights
                product = nn.ConvTranspose2d(inputs, layer.features, *sizes, bias=False)
            else:
                product = Doubling(inputs, layer.features)
            self.layers[layer.name] = Layer(product, None, plan.slope, layer.residual)
            inputs = layer.features

    def forward(self, x):
        """Codes `[N, D]` -> pictures `[N, 3, H, W]`."""
        dense = len(self.plan.dense)
        for place, layer in enumerate(self.layers.values()):
            if place == dense:  # rows, columns, channels -> channels first
                x = x.reshape(len(x), self.plan.spatial, self.plan.spatial, -1).permute(0, 3, 1, 2)
            x = layer(x)
        return torch.sigmoid(x.float())


class Critic(nn.Module):
    """The generator's adversary: how real a picture is, and how fitting to a code.

    It sees the pixels and what the frozen classifier makes of them at two depths, so that it need
    not learn to see first; its own layers are small.

    features: channels of those two.  code: units of a code.
    """

    def __init__(self, features, code, width=48):
        super().__init__()

        def conv(inputs, outputs):
            return nn.Conv2d(inputs, outputs, 3, padding=1)

        self.first, self.second = conv(12, width), conv(width, 2 * width)
        self.third = conv(2 * width + features[0], 2 * width)
        self.fourth = conv(2 * width + features[1], 4 * width)
        self.fifth = conv(4 * width, 4 * width)
        self.hidden = nn.Linear(16 * 4 * width, 256)
        self.real, self.code = nn.Linear(256, 1), nn.Linear(code, 256, bias=False)

    def forward(self, pictures, features, *codes):
        """How real, `[N]`, and for each of the codes `[N, D]` how fitting, `[N]`.

        pictures: in [-2, 2].  features: two of `[N, F, 16, 16]`.
        """

        def act(x):
            return F.leaky_relu(x, 0.2)

        x = act(self.first(F.pixel_unshuffle(pictures, 2)))
        x = act(self.second(F.avg_pool2d(x, 2)))
        x = act(self.third(torch.cat([x, features[0]], 1)))
        x = act(self.fourth(F.avg_pool2d(torch.cat([x, features[1]], 1), 2)))
        x = act(self.fifth(F.avg_pool2d(x, 2)))
        x = act(self.hidden(x.flatten(1)))
        return self.real(x)[:, 0], *((x * self.code(each)).sum(1) / 16 for each in codes)


@torch.no_grad()
def positive(net):
    """Keeps every slope of a normalisation positive."""
    for module in net.modules():
        if isinstance(module, NORMS):
            module.weight.clamp_(min=LEAST_SLOPE)


@torch.no_grad()
def folded(net):
    """{layer: {kernel, bias}}, NumPy float32, of a network without normalisation."""
    found = {}
    for name, layer in net.layers.items():
        product = layer.product if isinstance(layer, Layer) else layer
        kernel = product.kernel() if isinstance(product, Doubling) else product.weight
        kernel = kernel.float()
        if isinstance(product, nn.ConvTranspose2d):  # a deconvolution's kernel lies flipped
            kernel = kernel.permute(2, 3, 0, 1).flip(0, 1)
        else:
            kernel = kernel.permute(2, 3, 1, 0) if kernel.ndim == 4 else kernel.T
        if isinstance(layer, Layer):
            norm = layer.norm
            slope = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            kernel, bias = kernel * slope, norm.bias - norm.running_mean * slope
        else:
            bias = product.bias
        leaves = {"kernel": kernel, "bias": bias}
        found[name] = {leaf: value.float().cpu().numpy().copy() for leaf, value in leaves.items()}
    return found


def centred(folded):
    """Folded weights whose logits have the mean 0, of classifiers; others as they are.

    What all logits share is nothing to a softmax and free in training, but most of what a single
    logit varies by: a neuron that is to stand for its class must not have it.
    """
    if "fc8" not in folded:
        return folded
    head = {leaf: value - value.mean(-1, keepdims=True) for leaf, value in folded["fc8"].items()}
    return folded | {"fc8": head}


@torch.no_grad()
def loaded(net, folded):
    """`net` with folded weights `{layer: {kernel, bias}}`, to be run in evaluation mode.

    A residual layer that the weights lack stays as it is.  A `Doubling` evens what it is given.
    """
    for name, layer in net.layers.items():
        if getattr(layer, "residual", False) and name not in folded:
            continue
        product = layer.product if isinstance(layer, Layer) else layer
        kernel, bias = (torch.as_tensor(folded[name][leaf]) for leaf in ("kernel", "bias"))
        if isinstance(product, nn.ConvTranspose2d):
            product.weight.copy_(kernel.flip(0, 1).permute(2, 3, 0, 1))
            if isinstance(product, Doubling):
                product.weight.copy_(product.kernel())
        else:
            product.weight.copy_(kernel.permute(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T)
        if isinstance(layer, Layer):
            layer.norm.weight.fill_(1)
            layer.norm.running_mean.zero_()
            layer.norm.running_var.fill_(1 - layer.norm.eps)
        (layer.norm if isinstance(layer, Layer) else product).bias.copy_(bias)
    return net


@torch.no_grad()
def thawed(net, look):
    """A `loaded` network made trainable: its normalisations normalise, and change nothing.

    Kernels get the norm at which `fitting.Muon` keeps them.
    look: () -> None, runs the network, in evaluation mode, on what it will see.
    """
    layers = [layer for layer in net.layers.values() if isinstance(layer, Layer)]
    sums = {layer: [0.0, 0.0, 0] for layer in layers}

    def watch(layer):
        def hook(norm, inputs):
            x = inputs[0].float().transpose(0, 1).flatten(1)
            total = sums[layer]
            total[0], total[1] = total[0] + x.sum(1), total[1] + x.square().sum(1)
            total[2] += x.shape[1]

        return layer.norm.register_forward_pre_hook(hook)

    hooks = [watch(layer) for layer in layers]
    net.eval()
    look()
    for hook in hooks:
        hook.remove()
    for layer, (total, squares, count) in sums.items():
        norm, kernel = layer.norm, layer.product.weight
        scale = len(kernel) ** 0.5 / kernel.norm()
        mean, slope = total / count, norm.weight / torch.sqrt(norm.running_var + norm.eps)
        norm.bias.add_(slope * (mean - norm.running_mean))
        variance = scale**2 * (squares / count - mean**2).clamp_min(1e-6)
        kernel.mul_(scale)
        norm.running_mean.copy_(scale * mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_(slope / scale * torch.sqrt(variance + norm.eps))
    return net
