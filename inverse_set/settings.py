"""How to sample: every choice, its default, and what cannot work."""

from typing import Any, NamedTuple

import numpy as np

from inverse_set import constraints, diversity, sampler, seeds

METHODS = ("incremental", "joint")
WALKS = ("direct", "refine")


class Settings(NamedTuple):
    """How to sample; the defaults serve every unit and K alike.

    rule: "two_sided" (eq. 1), or "paper" (eqs. 8 to 11 as printed: one-sided acceptance, raw sum
        over pairs, raw residuals, plain steps).
    method: "incremental" (seeds, then steps) or "joint" (eq. 16: all n codes at once).
    distance: "encoder" (eq. 6), "image" (eq. 5), "code" (eq. 14) or "none" (eq. 15).
    memory: C0 is "replace"d (paper) or "accumulate"d.
    stop: the descent ends "inside", as soon as all codes are, or at a "plateau" of diversity; None
        is "inside" for seeds and "plateau" for the joint method.
    optimiser: an optax transformation; None is Adam, in units of the natural spread of codes.
    rate: Adam's learning rate in natural standard deviations of a code's entry.
    walk: sampling steps that stay inside, "direct" (eq. 11, each as long as it can be), or that
        leave the region and come back, "refine" (refine.py; not under the paper rule).
    step: beta.  A share of the natural distance between two codes; under the paper rule the factor
        of the plain gradient.  None is 0.2, 0.1 of the "refine" walk, under the paper rule 1e-4.
    noise: of the "refine" walk, length of a step's random part, a share of the same distance; it
        leads from one natural code to another (`Natural.codes`) or anywhere.
    encodings: of the "refine" walk, times a step's codes are replaced by E(G(c)) and corrected.
        Needs an E whose range are codes: None is 2 for the models that come with the package,
        else 0.
    diversity: weight of the mean over pairs of (distance / natural distance)^2.
    margin: share of the interval's width the slack keeps from either end, below a half.
    guard: share of the width by which acceptance is stricter than the interval, below a half.
    seed_steps: budget of gradient steps of the descent.  inner_steps: of them between updates of
        lambda and mu; seeds still outside are given up after two updates in which no other came
        inside (not under the paper rule, nor by the joint method).
    penalty, growth, penalty_cap: mu_0, alpha, largest mu.
    plateau: steps without a thousandth more diversity that make a plateau.
    patience: sampling gives up after this many steps in a row without a new sample.
    micro: codes a micro-batch, so that memory does not grow with the codes of a step; None is all
        K of the incremental method at once and 20 of the joint one.
    """

    rule: str = "two_sided"
    method: str = "incremental"
    distance: str = "encoder"
    memory: str = "replace"
    walk: str = "direct"
    stop: str | None = None
    optimiser: Any = None
    rate: float = 0.1
    step: float | None = None
    noise: float = 0.7
    encodings: int | None = None
    diversity: float = 1.0
    margin: float = 0.2
    guard: float = 0.0
    seed_steps: int = 1000
    inner_steps: int = 100
    penalty: float = 10.0
    growth: float = 10.0
    penalty_cap: float | None = None
    plateau: int = 300
    patience: int = 20
    micro: int | None = None


def resolve(settings):
    """Settings with everything that follows from the rule and the method filled in.

    The paper's mu has no cap; 1e15 keeps its squares finite in float32.
    """
    paper, joint = settings.rule == "paper", settings.method == "joint"
    defaults = {
        "stop": "plateau" if joint else "inside",
        "step": 1e-4 if paper else 0.1 if settings.walk == "refine" else 0.2,
        "encodings": 0,
        "penalty_cap": 1e15 if paper else 1e5,
        "micro": 20 if joint else None,
    }
    missing = {key: value for key, value in defaults.items() if getattr(settings, key) is None}
    return settings._replace(**missing)


def check(settings):
    """Raises ValueError for resolved settings that cannot work."""
    choices = (
        ("rule", constraints.RULES),
        ("method", METHODS),
        ("distance", diversity.DISTANCES),
        ("memory", sampler.MEMORIES),
        ("walk", WALKS),
        ("stop", seeds.STOPS),
    )
    for field, allowed in choices:
        if getattr(settings, field) not in allowed:
            raise ValueError(
                f"expected {field} among {', '.join(allowed)}, got {getattr(settings, field)!r}"
            )
    for field in ("seed_steps", "inner_steps", "plateau", "patience", "micro", "growth"):
        if field == "micro" and settings.micro is None:
            continue
        if not getattr(settings, field) >= 1:
            raise ValueError(f"expected {field} >= 1, got {getattr(settings, field)}")
    for field in ("rate", "step", "penalty", "penalty_cap"):
        if not 0 < getattr(settings, field) < np.inf:
            raise ValueError(f"expected a finite {field} > 0, got {getattr(settings, field)}")
    if settings.walk == "refine" and settings.rule == "paper":
        raise ValueError("expected walk direct under the paper rule, got 'refine'")
    if settings.walk == "refine" and settings.method == "joint":
        raise ValueError("the joint method does not walk: expected walk direct, got 'refine'")
    for field in ("noise", "encodings"):
        if not 0 <= getattr(settings, field) < np.inf:
            raise ValueError(f"expected {field} >= 0, got {getattr(settings, field)}")
    for field in ("margin", "guard"):
        if not 0 <= getattr(settings, field) < 0.5:
            raise ValueError(f"expected 0 <= {field} < 0.5, got {getattr(settings, field)}")


class Natural(NamedTuple):
    """The natural range and spread of codes and encodings.

    lower, upper: `[D]` box for the codes, None for none.
    code_square, feature_square: mean squared distance between two natural codes or encodings; None
        measures them on the starting codes.
    codes: `[M, D]`, M >= 2, some natural codes; None for none.  Random parts of steps of the
        "refine" walk lead from one to another.
    """

    lower: Any = None
    upper: Any = None
    code_square: Any = None
    feature_square: Any = None
    codes: Any = None
