"""Trains the bundled model's generator G, which inverts the classifier's fc6, E.

Pixels, features of the frozen classifier at several depths, and an adversary that sees picture and
code.  To each batch come codes of which no picture exists, mixtures of two of its codes and some
moved towards a class by its gradient, as the sampler moves them: they are held to E(G(h)) = h and
to the adversary's verdict on the picture alone.

The adversary compares a real picture with a drawn one (a relativistic loss), the two of the same
code where there are two, and the slopes of its verdict on either are penalised.  Its part of the
gradient is scaled, at the picture, to a share of the rest's: neither can drown the other.
"""

import sys
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from experiments import fitting, mini_pair, nets
from inverse_set.models import mini

# Layer -> weight of its relative error.  The class's divergence is there for what a class hangs
# on, a part of relu6's variance that its own error hardly sees.
FEATURES = {"pool1": 0.25, "pool2": 0.5, "relu4": 0.5, "relu6": 0.5}
SEEN = ("pool2", "relu4")  # by the adversary
PIXELS = 2.0
CLASS = 0.25  # of the divergence of the classifier's verdict, in nats
GROWS = 12.0  # what relu6's and the class's weights are multiplied by in the end
EVERY = 16  # steps between two looks at that share, and between two penalties of slopes
RIVAL = 2  # steps between two of the adversary's own, which wins too easily with one each
PENALTY, PENALISED = 0.5, 8  # weight of squared slopes, and pictures that bear them
MUON, ADAM, CRITIC = 0.02, 1e-3, 1e-4  # peak rates
WRONG = 0.5  # weight of telling a picture's code from another's
MIXED, MOVED = 0.1, 0.2  # codes without pictures, for each picture
WARM = 0.03
SAMPLE = 4096  # pictures that scales are measured on


class Terms(NamedTuple):
    """What a stage asks of the generator, and how fast.

    rate: of the peak rates.  features: {layer: weight of its relative error}.
    fine: pixels are compared in squares of as many a side.
    grows: what relu6's and the class's weights are multiplied by at first, and in the end.
    adversarial: the adversary's share of the rest's gradient norm.
    begins: shares of the steps before it counts, and counts in full; None: at once.
    """

    rate: float = 1.0
    features: dict = FEATURES
    fine: int = 1
    grows: tuple = (1.0, GROWS)
    adversarial: float = 0.35
    begins: tuple | None = (0.05, 0.15)


# Beside a classifier that learns pictures are compared in squares, and in no feature before fc6:
# what is finer no code tells, and a squared error there does no more than fade it.  The adversary
# has less to do, now that pictures are sharp.
BESIDE = Terms(0.3, {"relu6": FEATURES["relu6"]}, 4, (GROWS, GROWS), 0.15, None)


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
    """({layer or "pixels": variance}, {layer: root mean square}, upper bound of codes)."""
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
    codes = torch.cat(codes)
    upper = codes.sort(0).values[int(0.999 * (len(codes) - 1))]
    return variances, {name: value**0.5 for name, value in squares.items()}, upper


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


def checkpoint(path):
    """What `fitting.run` kept, of a stage before this one."""
    if not path.exists():
        sys.exit(f"{path} is missing\nrun --stage={path.stem} first, with that folder as --out")
    return torch.load(path, weights_only=True)


def fit(classes, width, passes, batch, seed, train, valid, out, every, start=None):
    """Stage "generator", or "pair"; writes `out/generator.safetensors`, returns its seconds.

    passes: [over the training pictures and their mirror images].  start: None, or the folder in
    which the stages before have ended: the generator goes on from there and the classifier learns
    too (`mini_pair`), into `out/classifier.safetensors`.  Other arguments as `mini_classifier.fit`
    has them.
    """
    images, labels = torch.as_tensor(train[0]), torch.as_tensor(train[1]).long()
    plain = nets.Classifier(mini.classifier_plan(classes, width), mini.SIDE)
    classifier = frozen((start or out) / "classifier.safetensors", plain)
    pupil = mini_pair.Pupil(classifier) if start else None
    variance, size, upper = scales(classifier, images)
    torch.manual_seed(seed + 1)
    net, average = fitting.network(nets.Generator(mini.generator_plan(width), 32 * width))
    seen = [classifier.layers[name].product.out_channels for name in ("conv2", "conv4")]
    critic, _ = fitting.network(nets.Critic(seen, 32 * width))
    muon, adam = fitting.optimisers(net)
    rival = torch.optim.Adam(critic.parameters(), lr=0.0, betas=(0.0, 0.99))
    total = round(passes[0] * (len(images) // batch))
    mixed, pushed = round(MIXED * batch), round(MOVED * batch)
    terms = BESIDE if start else Terms()
    share = torch.zeros(())  # what the adversary's loss is multiplied by
    parts = {"net": net, "average": average, "critic": critic, "share": fitting.Kept(share)}
    if start:
        kept = checkpoint(start / "generator.pt")
        for name, part in parts.items():
            part.load_state_dict(kept[name])

    def score(x, found, *codes):
        seen = [found[name][: len(x)] / size[name] for name in SEEN]
        with fitting.half_precision():
            verdicts = critic(4 * x - 2, seen, *(each / size["relu6"] for each in codes))
        return [verdict.float() for verdict in verdicts]

    def margins(real, drawn):
        """How much more real the real ones are: with codes where both have one picture."""
        known = real[0] + real[1] - (drawn[0] + drawn[1])[:batch]
        return torch.cat([known, real[0][: mixed + pushed] - drawn[0][batch:]])

    def rebuilt(step, drawn, found, targets, x):
        coarse = F.avg_pool2d(drawn[:batch] - x, terms.fine)
        errors = {"pixels": coarse.square().mean() / variance["pixels"]}
        for name in terms.features:
            target = targets[name]
            errors[name] = (found[name][: len(target)] - target).square().mean() / variance[name]
        errors["class"] = mini_pair.divergence(found["fc8"], targets["fc8"])
        first, last = terms.grows
        later = first + (last - first) * step / total
        weights = terms.features | {"pixels": PIXELS, "class": CLASS * later}
        weights["relu6"] *= later
        return sum(weights[name] * errors[name] for name in weights), errors

    def slopes(x, found, codes):
        x = x.detach().requires_grad_()
        verdicts = critic(4 * x - 2, [found[n][: len(x)] / size[n] for n in SEEN], codes)
        (slope,) = torch.autograd.grad(sum(v.sum() for v in verdicts), x, create_graph=True)
        return slope.square().sum((1, 2, 3)).mean() / 16

    def update(step, chosen, draw):
        ramp = fitting.ramp(step, total, WARM)
        scale = terms.rate * ramp
        fitting.set_rate(muon, MUON * scale)
        fitting.set_rate(adam, ADAM * scale)
        fitting.set_rate(rival, CRITIC * max(scale, 0.1))
        x = fitting.natural(images[chosen])
        mirrored = (torch.rand(batch, 1, 1, 1, generator=draw) < 0.5).to(x.device)
        x = torch.where(mirrored, x.flip(3), x).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            real = look(classifier, x)
            made = without_pictures(classifier, real["relu6"], mixed, pushed, upper, draw)
            own = real["relu6"]
            codes = torch.cat([own, made])
            logits = torch.cat([real["fc8"], head(classifier, made)])
            targets = {name: real[name] for name in FEATURES} | {"relu6": codes, "fc8": logits}

        net.train()
        with fitting.half_precision():
            drawn = net(codes)
        found = look(classifier, drawn)
        loss, errors = rebuilt(step, drawn, found, targets, x)
        counts = 1.0
        if terms.begins:
            begins, full = terms.begins
            counts = min(max((step / total - begins) / (full - begins), 0.0), 1.0)
        if counts:
            critic.requires_grad_(False)
            with torch.no_grad():
                honest = score(x, real, own)
            deceit = F.softplus(margins(honest, score(drawn, found, codes))).mean()
            if step % EVERY == 0 or not share:
                norms = [
                    torch.autograd.grad(part, drawn, retain_graph=True)[0].norm()
                    for part in (loss, deceit)
                ]
                now = terms.adversarial * norms[0] / norms[1].clamp_min(1e-12)
                share.copy_(0.8 * share + 0.2 * now if share else now)
            loss = loss + counts * share * deceit
            critic.requires_grad_(True)
        fitting.descend(loss, net, average, (muon, adam), step)
        errors = {name: error.detach() for name, error in errors.items()}
        if pupil:
            pooled = real["pool5"], found["pool5"][:batch].detach()
            errors |= pupil.learn(step, ramp, labels[chosen].to(x.device), *pooled)
        if step % RIVAL:
            return errors

        drawn, found = drawn.detach(), {name: found[name].detach() for name in SEEN}
        *honest, other = score(x, real, own, own.roll(1, 0))
        verdict = F.softplus(-margins(honest, score(drawn, found, codes))).mean()
        verdict = verdict + WRONG * F.softplus(other - honest[1]).mean()
        if step % EVERY == 0:
            few = codes[:PENALISED] / size["relu6"]
            both = slopes(x[:PENALISED], real, few) + slopes(drawn[:PENALISED], found, few)
            verdict = verdict + EVERY / RIVAL * PENALTY / 2 * both
        rival.zero_grad()
        verdict.backward()
        rival.step()
        return errors | {"critic": RIVAL * verdict.detach()}

    def report(step):
        fitting.save_folded(out / "generator.safetensors", average)
        if pupil:
            fitting.save_folded(out / "classifier.safetensors", pupil.average)
        judged = pupil.average if pupil else classifier
        return rebuild(judged, average, valid, out / f"reconstructions_{step:06d}.png")

    parts |= {"muon": muon, "adam": adam, "rival": rival} | (pupil.parts() if pupil else {})
    name = "pair" if start else "generator"
    return fitting.run(name, out, parts, total, len(images), batch, seed, update, report, every)


@torch.no_grad()
def rebuild(classifier, average, valid, path):
    """Reconstructions of valid pictures: pixel error, the classifier's agreement, and a sheet."""
    images, labels = (torch.as_tensor(a) for a in valid)
    average.eval()
    own, again, error, shown = [], [], 0.0, []
    wanted = np.linspace(0, len(labels) - 1, 48).astype(int)
    for start in range(0, len(labels), 250):
        x = fitting.natural(images[start : start + 250])
        seen = look(classifier, x)
        with fitting.half_precision():
            drawn = average(seen["relu6"])
        own.append(seen["fc8"].argmax(1).cpu())
        again.append(look(classifier, drawn)["fc8"].argmax(1).cpu())
        error += (drawn - x).square().mean((1, 2, 3)).sum().item() / x.var().item()
        here = wanted[(wanted >= start) & (wanted < start + 250)] - start
        pair = torch.stack([x[here], drawn[here]], 1).permute(0, 1, 3, 4, 2)
        shown.append((pair * 255).round().byte().cpu().numpy())
    own, again = torch.cat(own), torch.cat(again)
    sheet(np.concatenate(shown), path)
    return {
        "valid_pixels": error / len(labels),
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
