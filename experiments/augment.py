"""Random changes of training pictures, a whole batch at a time.  draw: a CPU's torch.Generator."""

import torch
import torch.nn.functional as F

ASPECT = 1.25  # of a crop: width over height either way


def augment(images, resolution, draw, smallest=0.5, colours=1.0, mode="bilinear"):
    """uint8 `[N, S, S, 3]` -> `[N, 3, resolution, resolution]` in [0, 1].

    Crops of at least the share `smallest` of the sides, mirror images half the time, contrast,
    white, and the strength of colour.  colours: how much of these three.  mode: of interpolation.
    """
    n, source = images.shape[:2]

    def uniform(*shape, low=0.0, high=1.0):
        return (low + (high - low) * torch.rand(shape, generator=draw)).to(images.device)

    side = uniform(n, 1, low=smallest)
    aspect = ASPECT ** uniform(n, 1, low=-0.5, high=0.5)
    sides = torch.clamp(side * torch.cat([aspect, 1 / aspect], 1), max=1.0)
    centre = (1 - sides) * uniform(n, 2, low=-1.0)
    mirror = torch.where(uniform(n) < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3, device=images.device)
    theta[:, 0, 0], theta[:, 1, 1] = sides[:, 0] * mirror, sides[:, 1]
    theta[:, :, 2] = centre
    # Where a crop is made smaller, it is drawn at twice the size first: or thin lines would break.
    drawn = 2 * resolution if 2 * resolution <= source else resolution
    x = images.permute(0, 3, 1, 2).float() / 255
    grid = F.affine_grid(theta, (n, 3, drawn, drawn), align_corners=False)
    x = F.grid_sample(x, grid, mode, padding_mode="reflection", align_corners=False)
    if drawn != resolution:
        x = F.avg_pool2d(x, drawn // resolution)
    gain, strength = uniform(n, 1, 1, 1, low=0.7, high=1.3), uniform(n, 1, 1, 1, low=0.6, high=1.4)
    shift = uniform(n, 3, 1, 1, low=-0.08, high=0.08)
    if colours != 1:
        gain, strength, shift = (
            1 + colours * (gain - 1),
            1 + colours * (strength - 1),
            colours * shift,
        )
    grey = x.mean(1, keepdim=True)
    x = ((grey + strength * (x - grey) - 0.5) * gain + 0.5 + shift).clamp_(0, 1)
    return x.contiguous(memory_format=torch.channels_last)


class Disturbance:
    """A change of pictures `[N, 3, S, S]` that nobody knows beforehand, the same each time called.

    Each picture is shifted by whole pixels, what comes in mirrored, and gets another brightness,
    contrast and strength of colour.  Differentiable.  shift: pixels at most, in each direction.
    """

    def __init__(self, count, draw, device, shift=3):
        def uniform(low, high):
            return (low + (high - low) * torch.rand(count, 1, 1, 1, generator=draw)).to(device)

        self.pixels = torch.randint(-shift, shift + 1, (count, 2), generator=draw).to(device)
        self.light, self.contrast = uniform(-0.15, 0.15), uniform(0.75, 1.25)
        self.strength = uniform(0.5, 1.5)

    def __call__(self, x):
        """x: the first so many pictures."""
        n, side = len(x), x.shape[-1]
        theta = torch.eye(2, 3, device=x.device).repeat(n, 1, 1)
        theta[:, :, 2] = 2 * self.pixels[:n] / side
        grid = F.affine_grid(theta, x.shape, align_corners=False)
        x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
        grey = x.mean(1, keepdim=True)
        x = grey + self.strength[:n] * (x - grey)
        mean = x.mean((1, 2, 3), keepdim=True)
        x = mean + self.contrast[:n] * (x - mean) + self.light[:n]
        return x.contiguous(memory_format=torch.channels_last)


def cutmix(x, labels, draw):
    """A box of every picture is the one's before it: (pictures, those labels, own share)."""
    side = x.shape[-1]
    length = round(side * torch.rand((), generator=draw).item() ** 0.5)
    if not length:
        return x, labels, 1.0
    top, left = torch.randint(0, side - length + 1, (2,), generator=draw).tolist()
    place = (..., slice(top, top + length), slice(left, left + length))
    x = x.clone()
    x[place] = x.roll(1, 0)[place]
    return x, labels.roll(1), 1 - (length / side) ** 2
