"""`inverse-set verify`: recomputes each saved picture's activation; how many lie inside?"""

import sys

import numpy as np

from inverse_set import certified, errors, results
from inverse_set.errors import UserError
from inverse_set.models import units, zoo


def main(folder):
    """Exit code 0 only if every sample the run counts is there and lies inside."""
    samples, record = results.load(folder)
    try:
        model = zoo.load(record["model"])
        pairs = [units.parse_constraint(model, text) for text in record["asked"]]
        rule, hashes, count = record["rule"], record["weights"], record["samples"]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder}: run.json lacks {error}", "sample the folder again with --overwrite"
        ) from None
    if hashes != model.hashes:
        raise UserError(
            f"{folder} was made with other weights of {model.name}",
            "verify it with the version that made it, or sample it again with --overwrite",
            errors.WEIGHTS,
        )
    pictures = results.read_pictures(folder, count)
    constraints = [constraint for _, constraint in pairs]
    if not count:
        raise UserError(f"{folder} holds no pictures", "its run.json says why", errors.PARTIAL)
    activations = zoo.measure(model, pictures, [unit for unit, _ in pairs])
    inside = certified.accepted(activations, constraints, rule)
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
