"""Trains the bundled model's generator G, which inverts the classifier's fc6, E.

Codes of crops, mirror images and slightly recoloured pictures are natural codes too.  To each
batch come codes of which no picture exists, mixtures of two of its codes and some moved towards a
class by its gradient, as the sampler moves them.  What G draws of a code h is held to

    the picture whose code h is, where there is one, in squares of 4x4 pixels: what is finer no code
        tells, and a squared error there does no more than fade it;
    E(G(h)) = h and the classifier's verdict, after small shifts and changes of colour, which G does
        not know: or it would hide in a fine texture what E is to find;
    an adversary that sees pictures, after the same changes, and codes.

The adversary compares a real picture with a drawn one (a relativistic loss), the two of the same
code where there are two, and the slopes of its verdict on either are penalised.  Its part of the
gradient is scaled, at the picture, to a share of the rest's: neither can drown the other.
"""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from experiments import augment, fitting, nets
from inverse_set.models import mini

SEEN = ("pool2", "relu4")  # by the adversary
SQUARE = 4  # pixels a side, whose means are compared
PIXELS, CODE, CLASS = 2.0, 3.0, 1.5  # weights; of the class's divergence, in nats
SHARE, GROWN = (0.3, 0.8), 3000  # the adversary's at first, and from this step on
BEGINS = (100, 400)  # steps before the adversary counts, and counts in full
EVERY = 16  # steps between two looks at that share, and between two penalties of slopes
RIVAL = 2  # steps between two of the adversary's own, which wins too easily with one each
PENALTY, PENALISED = 0.5, 8  # weight of squared slopes, and pictures that bear them
MUON, ADAM, CRITIC = 0.02, 1e-3, 1e-4  # peak rates
WARM = 100  # steps in which they rise
WRONG = 0.5  # weight of telling a picture's code from another's
MIXED, MOVED = 0.1, 0.15  # codes without pictures, for each picture
CROPS = 0.75  # side of the smallest, of the picture's: smaller ones, enlarged, would be blurred
COLOURS = 0.3  # of the changes of colour that a classifier is trained with
SAMPLE = 4096  # pictures that scales are measured on
REPORTS, REPORTED = 4, 1000  # checkpoints between two reports, and valid pictures in one


def frozen(path, net):
    """`net` with the weights of a file of `fitting.save_folded`, whatever it was trained with."""
    net = nets.loaded(net, fitting.load_folded(path)).eval().requires_grad_(False)
    return net.to(fitting.DEVICE, memory_format=torch.channels_last)


def look(classifier, x):
    """Activations, float32, of pictures in [0, 1]."""
    with fitting.half_precision():
        return {k: v.float() for k, v in classifier.activations(4 * x - 2).items()}


@torch.no_grad()
def scales(classifier, images):
    """({layer or "pixels": variance}, {layer: root mean square}, codes `[N, D]`), of pictures."""
    chosen = np.linspace(0, len(images) - 1, min(SAMPLE, len(images))).astype(int)
    variances, squares, codes = {}, {}, []
    starts = range(0, len(chosen), 256)
    for start in starts:
        x = fitting.natural(images[chosen[start : start + 256]])
        found = look(classifier, x)
        codes.append(found["relu6"])
        for name, value in {"pixels": x, **found}.items():
            variances[name] = variances.get(name, 0) + value.var().item() / len(starts)
            squares[name] = squares.get(name, 0) + value.square().mean().item() / len(starts)
    return variances, {name: value**0.5 for name, value in squares.items()}, torch.cat(codes)


def head(classifier, codes):
    """Logits of codes."""
    return classifier.layers["fc8"](classifier.layers["fc7"](codes))


def moved(classifier, codes, upper, draw):
    """Codes a part of the way towards a class drawn for each, along its logit's gradient."""
    classes = torch.randint(0, classifier.layers["fc8"].out_features, (len(codes),), generator=draw)
    length = torch.rand(len(codes), 1, generator=draw).to(codes)
    with torch.enable_grad():
        at = codes.clone().requires_grad_()
        wanted = head(classifier, at)[range(len(codes)), classes].sum()
        (slope,) = torch.autograd.grad(wanted, at)
    slope = slope / slope.norm(dim=1, keepdim=True).clamp_min(1e-9)
    apart = (codes - codes.roll(1, 0)).norm(dim=1).mean()
    return torch.minimum((codes + length * apart * slope).clamp_min(0), upper)


def without_pictures(classifier, codes, mixed, pushed, upper, draw):
    """Codes `[mixed + pushed, D]` made of natural ones `[N, D]`."""
    weight = torch.rand(mixed, 1, generator=draw).to(codes)
    mixtures = weight * codes[:mixed] + (1 - weight) * codes[mixed : 2 * mixed]
    return torch.cat([mixtures, moved(classifier, codes[len(codes) - pushed :], upper, draw)])


def divergence(logits, wanted):
    """Mean Kullback-Leibler divergence of the wanted verdicts from those of `logits`, in nats."""
    pair = F.log_softmax(logits, 1), F.log_softmax(wanted, 1)
    return F.kl_div(*pair, reduction="batchmean", log_target=True)


@torch.no_grad()
def started(net, path, codes):
    """`net` with the weights of a generator's file, this script's or the package's."""

    def run():
        for start in range(0, len(codes), 256):
            net(codes[start : start + 256])

    net.to(fitting.DEVICE, memory_format=torch.channels_last)
    return nets.thawed(nets.loaded(net, fitting.load_folded(path)), run)


def fit(classes, width, steps, fall, batch, seed, train, valid, out, every, rate=1.0, start=None):
    """Stage "generator"; writes `out/generator.safetensors`, returns its seconds.

    steps: in all.  fall: in how many of them, the last ones, the rate falls to 0.
    train, valid: (uint8 pictures `[N, 64, 64, 3]`, labels).  every: steps between checkpoints.
    rate: multiplies the generator's peak rates.  start: a file of weights to start from, or None.
    """
    images = torch.as_tensor(train[0])
    plain = nets.Classifier(mini.classifier_plan(classes, width), mini.SIDE)
    classifier = frozen(out / "classifier.safetensors", plain)
    variance, size, codes = scales(classifier, images)
    upper = codes.sort(0).values[int(0.999 * (len(codes) - 1))]
    torch.manual_seed(seed + 1)
    net = nets.Generator(mini.generator_plan(width, residual=True), 32 * width)
    if start and not (out / "generator.pt").exists():
        net = started(net, start, codes)
    net, average = fitting.network(net)
    seen = [classifier.layers[name].product.out_channels for name in ("conv2", "conv4")]
    critic, _ = fitting.network(nets.Critic(seen, 32 * width))
    muon, adam = fitting.optimisers(net)
    rival = torch.optim.Adam(critic.parameters(), lr=0.0, betas=(0.0, 0.99))
    mixed, pushed = round(MIXED * batch), round(MOVED * batch)
    share = torch.zeros((), device=fitting.DEVICE)  # what the adversary's loss is multiplied by

    def score(x, found, *codes):
        seen = [found[name][: len(x)] / size[name] for name in SEEN]
        with fitting.half_precision():
            verdicts = critic(4 * x - 2, seen, *(each / size["relu6"] for each in codes))
        return [verdict.float() for verdict in verdicts]

    def margins(real, drawn):
        """How much more real the real ones are: with codes where both have one picture."""
        known = real[0] + real[1] - (drawn[0] + drawn[1])[:batch]
        return torch.cat([known, real[0][: mixed + pushed] - drawn[0][batch:]])

    def slopes(x, found, codes):
        x = x.detach().requires_grad_()
        verdicts = critic(4 * x - 2, [found[n][: len(x)] / size[n] for n in SEEN], codes)
        (slope,) = torch.autograd.grad(sum(v.sum() for v in verdicts), x, create_graph=True)
        return slope.square().sum((1, 2, 3)).mean() / 16

    def balance(step, rest, deceit, drawn):
        """Brings `share` nearer to what gives the adversary's gradient its part of the rest's."""
        norms = [
            torch.autograd.grad(part, drawn, retain_graph=True)[0].norm() for part in (rest, deceit)
        ]
        first, last = SHARE
        wanted = first + (last - first) * min(step / GROWN, 1.0)
        now = wanted * norms[0] / norms[1].clamp_min(1e-12)
        share.copy_(torch.where(share > 0, 0.8 * share + 0.2 * now, now))

    def update(step, chosen, draw):
        scale = fitting.plateau(step, steps, WARM, fall)
        fitting.set_rate(muon, MUON * rate * scale)
        fitting.set_rate(adam, ADAM * rate * scale)
        fitting.set_rate(rival, CRITIC * max(scale, 0.1))
        pictures = images[chosen].to(fitting.DEVICE)
        x = augment.augment(pictures, mini.SIDE, draw, CROPS, COLOURS, "bicubic")
        disturbed = augment.Disturbance(batch + mixed + pushed, draw, fitting.DEVICE)
        with torch.no_grad():
            own = look(classifier, x)["relu6"]
            made = without_pictures(classifier, own, mixed, pushed, upper, draw)
            codes, real = torch.cat([own, made]), disturbed(x)
            known = look(classifier, real)
            code = torch.cat([known["relu6"], made])
            logits = torch.cat([known["fc8"], head(classifier, made)])

        net.train()
        with fitting.half_precision():
            drawn = net(codes)
        shown = disturbed(drawn)
        found = look(classifier, shown)
        coarse = F.avg_pool2d(drawn[:batch] - x, SQUARE)
        errors = {
            "pixels": coarse.square().mean() / variance["pixels"],
            "code": (found["relu6"] - code).square().mean() / variance["relu6"],
            "class": divergence(found["fc8"], logits),
        }
        loss = PIXELS * errors["pixels"] + CODE * errors["code"] + CLASS * errors["class"]
        begins, full = BEGINS
        counts = min(max((step - begins) / (full - begins), 0.0), 1.0)
        if counts:
            critic.requires_grad_(False)
            with torch.no_grad():
                honest = score(real, known, own)
            deceit = F.softplus(margins(honest, score(shown, found, codes))).mean()
            if step % EVERY == 0 or step == begins + 1:
                balance(step, loss, deceit, drawn)
            loss = loss + counts * share * deceit
            critic.requires_grad_(True)
        fitting.descend(loss, net, average, (muon, adam), step)
        errors = {name: error.detach() for name, error in errors.items()}
        if step % RIVAL:
            return errors

        shown, found = shown.detach(), {name: found[name].detach() for name in SEEN}
        *honest, other = score(real, known, own, own.roll(1, 0))
        verdict = F.softplus(-margins(honest, score(shown, found, codes))).mean()
        verdict = verdict + WRONG * F.softplus(other - honest[1]).mean()
        if step % EVERY == 0:
            few = codes[:PENALISED] / size["relu6"]
            both = slopes(real[:PENALISED], known, few) + slopes(shown[:PENALISED], found, few)
            verdict = verdict + EVERY / RIVAL * PENALTY / 2 * both
        rival.zero_grad()
        verdict.backward()
        rival.step()
        return errors | {"critic": RIVAL * verdict.detach()}

    def report(step):
        fitting.save_folded(out / "generator.safetensors", average)
        chosen = np.linspace(0, len(valid[1]) - 1, min(REPORTED, len(valid[1]))).astype(int)
        some = [column[chosen] for column in valid]
        return rebuild(classifier, average, some, out / f"reconstructions_{step:06d}.png")

    parts = {"net": net, "average": average, "critic": critic, "share": fitting.Kept(share)}
    parts |= {"muon": muon, "adam": adam, "rival": rival}
    sizes = steps, len(images), batch
    return fitting.run("generator", out, parts, *sizes, seed, update, report, every, REPORTS)


@torch.no_grad()
def rebuild(classifier, average, valid, path):
    """Reconstructions of valid pictures (uint8, labels): a sheet at `path`, and what they are like.

    Returns {name: number}: pixel error, contrast, the classifier's agreement.
    """
    images, labels = (torch.as_tensor(a) for a in valid)
    average.eval()
    own, again, error, contrast, shown = [], [], 0.0, 0.0, []
    wanted = np.linspace(0, len(labels) - 1, 48).astype(int)
    for start in range(0, len(labels), 250):
        x = fitting.natural(images[start : start + 250])
        seen = look(classifier, x)
        with fitting.half_precision():
            drawn = average(seen["relu6"])
        own.append(seen["fc8"].argmax(1).cpu())
        again.append(look(classifier, drawn)["fc8"].argmax(1).cpu())
        error += (drawn - x).square().mean((1, 2, 3)).sum().item() / x.var().item()
        contrast += drawn.std((2, 3)).mean(1).sum().item()
        here = wanted[(wanted >= start) & (wanted < start + 250)] - start
        pair = torch.stack([x[here], drawn[here]], 1).permute(0, 1, 3, 4, 2)
        shown.append((pair * 255).round().byte().cpu().numpy())
    own, again = torch.cat(own), torch.cat(again)
    sheet(np.concatenate(shown), path)
    return {
        "valid_pixels": error / len(labels),
        "valid_contrast": contrast / len(labels),
        "valid_agreement": (again == labels).float().mean(),
        "valid_own_agreement": (again == own).float().mean(),
        "valid_top1": (own == labels).float().mean(),
    }


def sheet(pairs, path):
    """A picture of pairs uint8 `[48, 2, H, W, 3]`, each the natural one over the drawn."""
    side = pairs.shape[2]
    pairs = pairs[: len(pairs) // 8 * 8]
    pairs = pairs.reshape(-1, 8, 2, side, side, 3).transpose(0, 2, 3, 1, 4, 5)
    Image.fromarray(pairs.reshape(-1, 8 * side, 3)).save(path)
