"""`inverse-set verify`: is the folder as the run left it, and does every picture lie inside?"""

import sys

import numpy as np

from inverse_set import certified, constraints, errors, examine, results
from inverse_set.errors import UserError
from inverse_set.models import bind, units, zoo
from inverse_set.models.own import load_own

# Stored activations are rounded to float32, and sums of float64 depend on their order.
TOLERANCE = 1e-6  # of 1 + |activation|
REPEATED = 1e-4  # the same, of functions in float32 on another machine
MOST_LINES = 50


class _Faults:
    """Prints each fault as a line, up to a number; what a file says reaches no terminal raw."""

    def __init__(self):
        self.count = 0

    def __call__(self, text):
        self.count += 1
        if self.count <= MOST_LINES:
            print(f"inverse-set: {errors.shown(text[:400])}", file=sys.stderr)

    def close(self, folder):
        """The last lines; returns the exit code."""
        if not self.count:
            return 0
        if self.count > MOST_LINES:
            print(f"inverse-set: and {self.count - MOST_LINES} more", file=sys.stderr)
        many = "1 fault" if self.count == 1 else f"{self.count} faults"
        print(
            f"inverse-set: {errors.shown(folder)} is not what a run leaves: {many}\n"
            "  restore it from a copy, or run the sampling again into another folder",
            file=sys.stderr,
        )
        return errors.PARTIAL


def main(folder, own=None):
    """Exit code 0 only if every file is as saved, nothing contradicts, and all pictures inside.

    own: `FILE.py:NAME` or `package.module:NAME` of the model, for a run of a model of one's own:
    a folder never says which code to run.
    """
    run, faults = results.read_record(folder), _Faults()
    samples = examine.files(folder, run, faults)
    if samples is None:
        return faults.close(folder)
    examine.record_itself(run, samples, faults)
    chosen, model = _asked(folder, run, samples, faults, own)
    for text in _status(run):
        print(text)
    if not len(samples.images):
        code = faults.close(folder)
        if not code:
            print(
                f"inverse-set: {errors.shown(folder)} holds no pictures\n  its run.json says why",
                file=sys.stderr,
            )
        return code or errors.PARTIAL
    if chosen is None:
        for _ in examine.batches(folder, run, samples, faults):
            pass
    else:
        _judge_pictures(folder, run, samples, model, chosen, faults)
    return faults.close(folder)


def _status(run):
    """The line that says how the run ended: honest partial runs verify, and are not whole ones."""
    status, sentence = run.get("status"), run.get("status_sentence")
    if examine.is_text(status):
        yield errors.shown(f"status: {status}" + f", {sentence}" * examine.is_text(sentence))


def _asked(folder, run, samples, faults, own):
    """([(unit, constraint)], model) that run.json asks for; (None, model) if that is no good."""
    if "model" not in run:
        what = f"{folder}: run.json names no model, so no activation can be recomputed"
        if faults.count:
            return None, None
        raise UserError(what, "`inverse_set.results.load` checks the hashes of a model of your own")
    names = [run.get(key) for key in ("model", "subject", "untrained")]
    if not all(name is None or examine.is_text(name) for name in names):
        faults("run.json names its model in more than words")
        return None, None
    if run.get("own") is True:
        if own is None:
            raise UserError(
                f"{folder} is a run of a model of your own, {names[0]}",
                "say where it is: inverse-set verify DIR --model=FILE.py:NAME",
            )
        model = load_own(own)
    elif own is not None:
        raise UserError(f"{folder} is a run of {names[0]}", "leave --model out")
    else:
        model = zoo.load(*names)
    if model.untrained:
        print(f"note: the weights are random ({model.untrained}), not trained", file=sys.stderr)
    if run.get("weights") != model.digests:
        raise UserError(
            f"{folder} was made with other weights of {model.name}",
            "verify it with the version that made it",
            errors.WEIGHTS,
        )
    shape, drawn = samples.images.shape[1:], model.image.shape
    if shape != drawn or samples.pictures != model.pictures:
        kind = "pictures" if model.pictures else "inputs"
        held = f"{samples.images.dtype} {shape}"
        faults(f"samples.npz holds {held}, {model.name} draws {kind} {drawn}")
        return None, model
    return _pairs(model, run, samples, faults), model


def _pairs(model, run, samples, faults):
    """[(unit, constraint)] as asked, if it can be read, else None; told where run.json differs."""
    asked, stated, before = run.get("asked"), examine.stated_intervals(run), faults.count
    columns = samples.activations.shape[1]
    if run.get("rule") not in constraints.RULES:
        faults("run.json gives no rule: expected one of " + ", ".join(constraints.RULES))
    if not isinstance(asked, list) or not all(map(examine.is_text, asked)):
        faults("run.json does not say what was asked")
    elif len(asked) != columns:
        faults(f"run.json asks {len(asked)} constraints, samples.npz has activations of {columns}")
    if faults.count > before or stated is None or len(stated) != columns:
        return None
    pairs = []
    for text, (name, low, high) in zip(asked, stated, strict=True):
        try:
            unit, interval = units.parse_constraint(model, text)
        except UserError as error:
            faults(f"run.json asks what cannot be asked: {error.what}")
            return None
        meant = units.unit_name(model, unit)
        if name != meant or not np.allclose((low, high), interval[1:3], rtol=1e-9, atol=0):
            faults(
                f"run.json asks {text}, {meant} in [{interval.low:.6g}, {interval.high:.6g}], "
                f"and has the constraint {name} in [{low:.6g}, {high:.6g}]"
            )
        pairs.append((unit, interval))
    return pairs


def _judge_pictures(folder, run, samples, model, pairs, faults):
    """Recomputes every picture's activations: do they lie inside, and are they those stored?"""
    count, chosen = len(samples.images), [unit for unit, _ in pairs]
    intervals = [interval for _, interval in pairs]
    inside, largest, worst, differing = 0, 0.0, 0, 0
    tolerance = TOLERANCE if model.recheck else REPEATED
    if not model.recheck:
        print("note: activations are recomputed by the model's own functions", file=sys.stderr)
    for rows, images in examine.batches(folder, run, samples, faults):
        found = bind.measure(model, images, chosen)
        held = certified.accepted(found, intervals, run["rule"])
        inside += int(held.sum())
        for row, values in zip(rows[~held], found[~held], strict=True):
            said = ", ".join(f"{value:.6g}" for value in values)
            place = f"images/{row:05d}.png" if model.pictures else f"samples.npz: sample {row}"
            faults(f"{place} lies outside: its activation is {said}")
        # A picture that was exchanged has been told of; its stored activation is not its own.
        same = (images == samples.images[rows]).reshape(len(rows), -1).all(1)
        stored = samples.activations[rows[same]]
        gaps = np.abs(found[same] - stored)
        allowed = gaps <= tolerance * (1 + np.abs(found[same]))
        differing += int((~allowed.all(1)).sum())
        if len(gaps) and not gaps.max() <= largest:
            largest, worst = float(gaps.max()), int(rows[same][gaps.max(1).argmax()])
    print(f"{inside} of {count} {'pictures' if model.pictures else 'samples'} lie inside")
    print(
        f"largest difference to the stored activations: {largest:.2g} "
        f"({tolerance:g} of 1 + |activation| is allowed)"
    )
    if differing:
        faults(
            f"samples.npz stores other activations than {differing} of the pictures have, "
            f"off by up to {largest:.2g} (sample {worst})"
        )
