"""`inverse-set verify`: recomputes each saved picture's activation; how many lie inside?"""

import sys

import numpy as np

from inverse_set import certified, constraints, errors, results
from inverse_set.errors import UserError
from inverse_set.models import bind, units, zoo


def main(folder):
    """Exit code 0 only if every sample the run counts is there and lies inside."""
    samples, record = results.load(folder)
    count = len(samples.images)
    try:
        model = zoo.load(record["model"], record.get("subject"), record.get("untrained"))
        if model.untrained:
            print(f"note: the weights are random ({model.untrained}), not trained", file=sys.stderr)
        pairs = [units.parse_constraint(model, text) for text in record["asked"]]
        rule, hashes = record["rule"], record["weights"]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder}: run.json is not of a run ({type(error).__name__}: {error})",
            "sample the folder again with --overwrite",
        ) from None
    columns = samples.activations.shape[1]
    if rule not in constraints.RULES or len(pairs) != columns or not pairs:
        raise UserError(
            f"{folder}: run.json asks {len(pairs)} constraints by rule {rule!r}, "
            f"samples.npz holds {columns}",
            "sample the folder again with --overwrite",
        )
    if hashes != model.hashes:
        raise UserError(
            f"{folder} was made with other weights of {model.name}",
            "verify it with the version that made it, or sample it again with --overwrite",
            errors.WEIGHTS,
        )
    if not count:
        raise UserError(f"{folder} holds no pictures", "its run.json says why", errors.PARTIAL)
    pictures = results.read_pictures(folder, count)
    want = (count, model.resolution, model.resolution, 3)
    if not pictures.shape == samples.images.shape == want:
        raise UserError(
            f"{folder}: expected pictures {want}, found {pictures.shape}",
            "sample the folder again with --overwrite",
        )
    activations = bind.measure(model, pictures, [unit for unit, _ in pairs])
    inside = certified.accepted(activations, [asked for _, asked in pairs], rule)
    print(f"{inside.sum()} of {count} pictures lie inside")
    stored = np.abs(activations - samples.activations).max()
    print(f"largest difference to the stored activations: {stored:.2g}")
    if inside.all():
        return 0
    outside = np.flatnonzero(~inside)
    print(
        f"inverse-set: {len(outside)} pictures lie outside, the first is {outside[0]:05d}.png\n"
        "  sample the folder again with --overwrite",
        file=sys.stderr,
    )
    return errors.PARTIAL
