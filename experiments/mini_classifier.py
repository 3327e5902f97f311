"""Trains classifiers for the bundled model: its own, the scenes' and the judge.

Passes over the data at 32, then at 48, then at 64 pixels: small pictures teach most of it at a
fourth of the cost, and the last pooling is changed with them, so that fc6 reads as many values.
Crops, mirror images, colour jitter, cutmix in a quarter of the steps, label smoothing; Muon for
kernels, AdamW for the rest, a rate that falls to 0, an average of the weights.  At the end the
normalisations of the average get the statistics of whole, unchanged pictures.
"""

import copy

import numpy as np
import torch
import torch.nn.functional as F

from experiments import augment, fitting, nets

RESOLUTIONS = (32, 48, 64)
LAST_POOLS = {64: (5, 4), 48: (4, 3), 32: (3, 2)}
MUON, ADAM = 0.025, 2e-3  # peak rates
WARM = 0.03  # share of the steps in which they rise
SMOOTHING = 0.1  # share of every label that goes to all classes
SEEN = 30000  # pictures of the last statistics
BATCH = 500  # pictures at a time without gradients


def pictures(images):
    """uint8 `[N, H, W, 3]` on any device -> `[N, 3, H, W]` in the classifiers' scale, [-2, 2]."""
    return (4 * fitting.natural(images) - 2).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def accuracy(net, images, labels):
    """Share of whole pictures whose largest logit is their class."""
    net.eval()
    hits = 0
    for start in range(0, len(labels), BATCH):
        with fitting.half_precision():
            scores = net(pictures(images[start : start + BATCH]))
        hits += (scores.argmax(1).cpu() == labels[start : start + BATCH]).sum().item()
    return hits / len(labels)


@torch.no_grad()
def recalibrated(net, images):
    """A copy whose normalisations have the statistics of whole pictures, without dropout."""
    net = copy.deepcopy(net).train()
    net.dropout = 0.0
    for norm in (module for module in net.modules() if isinstance(module, nets.NORMS)):
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over batches
    for batch in some(images, SEEN):
        with fitting.half_precision():
            net(pictures(batch))
    return net.eval()


def some(images, count):
    """`count` of the pictures, or all if there are fewer, in batches."""
    chosen = np.random.default_rng(0).permutation(len(images))[:count]
    for start in range(0, len(chosen), BATCH):
        yield images[np.sort(chosen[start : start + BATCH])]


def started(net, path, images):
    """`net` with the weights of a file of `fitting.save_folded` or of the package."""

    def look():
        for batch in some(images, SEEN // 6):
            net(pictures(batch))

    net.to(fitting.DEVICE, memory_format=torch.channels_last)
    return nets.thawed(nets.loaded(net, fitting.load_folded(path)), look)


def fit(
    name,
    net,
    passes,
    batch,
    seed,
    train,
    valid,
    out,
    every,
    start=None,
    rate=1.0,
    mixed=0.25,
    smallest=0.5,
):
    """Trains `net` and writes `out/NAME.safetensors`; returns (seconds, top-1 on valid).

    passes: over the training pictures, at each of `RESOLUTIONS`.  train, valid: (uint8 pictures
    `[N, 64, 64, 3]`, labels).  every: steps between checkpoints.  start: a file of weights to
    start from, or None.  rate: multiplies the peak rates.  mixed: share of the steps with cutmix.
    smallest: side of a crop, as a share of the picture's.
    """
    (images, labels), valid = ([torch.as_tensor(a) for a in pair] for pair in (train, valid))
    labels = labels.long()
    if start:
        net = started(net, start, images)
    net, average = fitting.network(net)
    muon, adam = fitting.optimisers(net)
    per_pass = len(labels) // batch
    ends = np.cumsum([round(number * per_pass) for number in passes])
    total = int(ends[-1])

    def update(step, chosen, draw):
        resolution = RESOLUTIONS[int(np.searchsorted(ends, step, side="right"))]
        scale = rate * fitting.ramp(step, total, WARM)
        fitting.set_rate(muon, MUON * scale)
        fitting.set_rate(adam, ADAM * scale)
        seen = images[chosen].to(fitting.DEVICE)
        x = 4 * augment.augment(seen, resolution, draw, smallest) - 2
        own = labels[chosen].to(fitting.DEVICE)
        other, share = own, 1.0
        if torch.rand((), generator=draw) < mixed:
            x, other, share = augment.cutmix(x, own, draw)
        net.train()
        with fitting.half_precision():
            scores = net(x)
        scores = scores.float()
        loss = share * F.cross_entropy(scores, own, label_smoothing=SMOOTHING)
        if share < 1:
            loss = loss + (1 - share) * F.cross_entropy(scores, other, label_smoothing=SMOOTHING)
        fitting.descend(loss, net, average, (muon, adam), step)
        return {"loss": loss.detach()}

    def report(step):
        return {"valid": accuracy(average, *valid)}

    parts = {"net": net, "average": average, "muon": muon, "adam": adam}
    size = len(labels)
    seconds = fitting.run(name, out, parts, total, size, batch, seed, update, report, every)
    final = recalibrated(average, images)
    fitting.save_folded(out / f"{name}.safetensors", final)
    top1 = accuracy(final, *valid)
    print(f"{name}: {seconds:.0f} s, top-1 {top1:.4f} on {len(valid[1])} pictures", flush=True)
    return seconds, top1
