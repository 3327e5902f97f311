"""Lets the bundled model's classifier learn beside its generator.

What fc6 reads from a photograph's finest detail no small generator can draw, and whatever is lost
moves the verdict too.  So the dense layers, whose inputs cost nothing more, are turned towards what
comes back: of G(E(x)) they shall say what they say of x, in fc6's units and in the end, while the
verdicts on photographs are held to those of the classifier as it was, and to their labels.  Codes
that come from no photograph are left out, or they would learn to believe whatever those draw.
"""

import copy

import torch
import torch.nn.functional as F

from experiments import fitting

LEARNING = ("fc6", "fc7", "fc8")
RATE = 4e-5  # Adam's, at its peak
SHARPER = 2.0  # verdicts that are to come back: or all logits shrink
AGAIN, CODES, DRIFT, LABELS = 2.0, 3.0, 0.5, 0.4  # weights beside that of the old verdicts


def divergence(logits, wanted, sharper=1.0):
    """Mean Kullback-Leibler divergence of the wanted verdicts from those of `logits`, in nats.

    sharper: multiplies the logits, so that more hangs on the first few classes.
    """
    pair = F.log_softmax(sharper * logits, 1), F.log_softmax(sharper * wanted, 1)
    return F.kl_div(*pair, reduction="batchmean", log_target=True)


def look(dense, pooled):
    """(fc6's units after the ReLU, logits), float32, of pool5's values `[N, C, H, W]`."""
    with fitting.half_precision():
        codes = dense[0](pooled.permute(0, 2, 3, 1).flatten(1))
        return codes.float(), dense[2](dense[1](codes)).float()


class Pupil:
    """A loaded classifier, its average, its optimiser, and what it was before."""

    def __init__(self, classifier):
        self.net, self.average = classifier, copy.deepcopy(classifier)
        self.before = self._dense(copy.deepcopy(classifier))
        self.dense = self._dense(classifier)
        self.learning = [
            value
            for name, value in self.dense.named_parameters()
            if not name.endswith("norm.weight")
        ]
        self.adam = torch.optim.Adam(self.learning, lr=0.0, betas=(0.9, 0.99))

    @staticmethod
    def _dense(classifier):
        return torch.nn.ModuleList(classifier.layers[name] for name in LEARNING)

    def parts(self):
        return {"classifier": self.net, "pupil": self.average, "learning": self.adam}

    def learn(self, step, scale, labels, seen, drawn):
        """One step; returns {name: loss}.

        scale: of the peak rate.  labels: `[N]`, of photographs x.  seen, drawn: pool5's values
        `[N, C, H, W]` of x and of G(E(x)).
        """
        fitting.set_rate(self.adam, RATE * scale)
        with torch.no_grad():
            codes_before, before = look(self.before, seen)
        for value in self.learning:
            value.requires_grad_(True)
        (codes, logits), (codes_again, again) = look(self.dense, seen), look(self.dense, drawn)
        apart = (codes_again - codes).square().mean() / codes.var()
        drift = (codes - codes_before).square().mean() / codes_before.var()
        taught = F.cross_entropy(logits, labels) + F.cross_entropy(again, labels)
        kept, same = divergence(logits, before), divergence(again, logits, SHARPER)
        loss = kept + AGAIN * same + CODES * apart + DRIFT * drift + LABELS * taught
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        for value in self.learning:
            value.requires_grad_(False)
        fitting.follow(self.average, self.net, step)
        losses = {"kept": kept, "same": same, "apart": apart, "drift": drift}
        return {name: value.detach() for name, value in losses.items()}
