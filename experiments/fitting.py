"""What every training stage shares: the loop, its checkpoints, averages and optimisers.  PyTorch.

Training is not what this package is for, so it leans on the library whose kernels are fastest: on
two cores with bfloat16 products PyTorch takes a third to a quarter of the time that JAX takes.
"""

import copy
import os
import sys
import time

import numpy as np
import safetensors.numpy
import torch

from experiments import nets

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
KEEP = 0.999  # of the average of weights, a step
BLOCK = 256  # outputs orthogonalised together: 1,024 in one piece take four times as long
DECAY = 0.05  # weight decay of what Muon does not step, times the rate; of matrices only


# A CPU without instructions for bfloat16 takes three times as long with it as with float32.
FAST = DEVICE == "cuda" or torch.cpu.get_capabilities().get("avx512_bf16", False)


def half_precision():
    """Products in bfloat16 where these are the faster ones."""
    return torch.autocast(DEVICE, torch.bfloat16, enabled=FAST)


def orthogonal(matrix, steps=5):
    """Nearly the orthogonal factor of `matrix`, by Newton-Schulz iterations of degree five."""
    a, b, c = 3.4445, -4.7750, 2.0315  # singular values end in about [0.7, 1.2]
    x = matrix.bfloat16() if FAST else matrix
    x = x / (x.norm() + 1e-7)
    tall = len(x) > x.shape[1]
    x = x.T if tall else x
    for _ in range(steps):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return (x.T if tall else x).float()


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum, for kernels whose scale a normalisation makes irrelevant.

    Each is kept at the norm sqrt(outputs), so that the rate is a relative step.
    """

    def __init__(self, params, momentum=0.9):
        super().__init__(params, {"lr": 0.0, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if "average" not in state:
                    state["average"] = torch.zeros_like(p)
                average = state["average"].mul_(group["momentum"]).add_(p.grad)
                seen = p.grad.add(average, alpha=group["momentum"])
                p.mul_(len(p) ** 0.5 / p.norm())
                parts = seen.reshape(len(p), -1).split(BLOCK)
                step = torch.cat([orthogonal(part) for part in parts])
                p.add_(step.view_as(p), alpha=-group["lr"])


def optimisers(net, betas=(0.9, 0.98)):
    """(Muon of the normalised kernels, AdamW of the rest)."""
    kernels = [p for name, p in net.named_parameters() if name.endswith("product.weight")]
    rest = [p for name, p in net.named_parameters() if not name.endswith("product.weight")]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": DECAY},
        {"params": [p for p in rest if p.ndim == 1], "weight_decay": 0.0},
    ]
    return Muon(kernels), torch.optim.AdamW(groups, lr=0.0, betas=betas)


def set_rate(optimiser, rate):
    for group in optimiser.param_groups:
        group["lr"] = rate


def ramp(step, total, warm):
    """Linear to 1 in the share `warm` of all steps, and linear to 0."""
    done = (step + 0.5) / total
    return min(done / warm, (1 - done) / (1 - warm))


def plateau(step, total, warm, fall):
    """Linear to 1 in the first `warm` steps, and linear to 0 in the last `fall` ones.

    Whoever finds that `total` was too many goes on with a smaller one.
    """
    return min((step + 1) / warm, 1.0, (total - step) / fall)


@torch.no_grad()
def follow(average, net, step):
    """Exponential average of weights and statistics; the first steps count more."""
    keep = min(KEEP, (step + 1) / (step + 11))
    pairs = zip(average.state_dict().values(), net.state_dict().values(), strict=True)
    for old, new in pairs:
        if old.is_floating_point():
            old.lerp_(new, 1 - keep)
        else:
            old.copy_(new)


def descend(loss, net, average, optimisers, step):
    """One step of all optimisers down the gradient of a scalar, and of the average after it."""
    net.zero_grad()
    loss.backward()
    for optimiser in optimisers:
        optimiser.step()
    nets.positive(net)
    follow(average, net, step)


def natural(images):
    """uint8 `[N, H, W, 3]` -> `[N, 3, H, W]` in [0, 1] on the device."""
    return images.to(DEVICE).permute(0, 3, 1, 2).float() / 255


def network(net):
    """(the network on the device, a copy of it for the average)."""
    net = net.to(DEVICE, memory_format=torch.channels_last)
    return net, copy.deepcopy(net)


class Kept:
    """A tensor, changed in place, as a part of the state."""

    def __init__(self, tensor):
        self.tensor = tensor

    def state_dict(self):
        return {"value": self.tensor}

    def load_state_dict(self, state):
        self.tensor.copy_(state["value"])


class Log:
    """Prints a line of numbers and appends it to `path`."""

    def __init__(self, path):
        self.path = path

    def __call__(self, step, seconds, **numbers):
        parts = [f"step {step:6d}  {seconds:7.0f} s"]
        parts += [f"{name} {float(value):.4f}" for name, value in numbers.items()]
        line = "  ".join(parts)
        print(line, flush=True)
        with open(self.path, "a") as file:
            file.write(line + "\n")


def run(name, out, parts, total, size, batch, seed, update, report, every, reports=2):
    """Takes a stage from its newest checkpoint, `out/NAME.pt`, to its end; returns its seconds.

    parts: {name: whatever has a state_dict}.  total: steps.  size: pictures of a pass.
    update: (step, numbers of pictures `[batch]`, torch.Generator) -> {name: loss}.
    report: step -> {name: number}, at the end and at every so many checkpoints, `reports`.
    every: steps between checkpoints.  Random numbers go on where they were, so that a stage that
    was killed ends in the same weights.  Leaves with 1 where a loss is not finite.
    """
    if size < batch:
        sys.exit(f"{name}: a batch of {batch} pictures is more than there are, {size}")
    path, log = out / f"{name}.pt", Log(out / f"{name}.log")
    draw = torch.Generator().manual_seed(seed)
    step, spent, order = 0, 0.0, None
    if path.exists():
        kept = torch.load(path, weights_only=True)
        for key, part in parts.items():
            part.load_state_dict(kept[key])
        step, spent, order = kept["step"], kept["spent"], kept["order"]
        draw.set_state(kept["draw"])
        torch.set_rng_state(kept["rng"])
    begun, sums, count = time.monotonic(), {}, 0
    while step < total:
        place = step % (size // batch)
        if place == 0 or order is None:
            order = torch.randperm(size, generator=draw)
        losses = update(step, order[place * batch : (place + 1) * batch], draw)
        step, count = step + 1, count + 1
        for key, loss in losses.items():
            sums[key] = sums.get(key, 0.0) + float(loss)
        if not np.isfinite(list(sums.values())).all():
            sys.exit(f"{name}: not finite in the steps to {step}: {sums}; see {path}")
        if step % every and step < total:
            continue
        now = spent + time.monotonic() - begun
        kept = {key: part.state_dict() for key, part in parts.items()}
        kept |= {"step": step, "spent": now, "order": order}
        kept |= {"draw": draw.get_state(), "rng": torch.get_rng_state()}
        save(path, lambda place, kept=kept: torch.save(kept, place))
        numbers = {key: value / count for key, value in sums.items()}
        if step % (reports * every) == 0 or step == total:
            numbers |= report(step)
        log(step, now, **numbers)
        sums, count = {}, 0
    return spent + time.monotonic() - begun


def save(path, write):
    """write(temporary path), then in the place of `path` as a whole: a kill loses nothing."""
    temporary = path.with_suffix(".tmp")
    write(temporary)
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def save_folded(path, net):
    """The weights as a file of fp16, all that later stages and the export read."""
    tensors = {
        f"{layer}/{leaf}": value.astype(np.float16)
        for layer, leaves in nets.centred(nets.folded(net)).items()
        for leaf, value in leaves.items()
    }
    save(path, lambda place: safetensors.numpy.save_file(tensors, place))


def load_folded(path):
    """`{layer: {kernel, bias}}`, NumPy float32, as `save_folded` wrote it."""
    if not path.exists():
        sys.exit(f"{path} is missing\nrun --stage={path.stem} first, or put the file there")
    tree = {}
    for name, value in safetensors.numpy.load_file(path).items():
        layer, leaf = name.split("/")
        tree.setdefault(layer, {})[leaf] = value.astype(np.float32)
    return tree
