"""`inverse-set sample`: from the command line to a folder of certified pictures."""

import sys
import time

import numpy as np
from rich.table import Table

from inverse_set import certified, errors, report, results
from inverse_set.commands import dry_run, lists, memory, progress
from inverse_set.errors import UserError
from inverse_set.models import bind, units
from inverse_set.settings import Settings, check, resolve
from inverse_set.types import Status

CODES = {
    Status.OK: 0,
    Status.PLATEAU: 0,
    Status.BUDGET: 0,
    Status.INTERRUPTED: errors.INTERRUPTED,
}


def main(values, load):
    """Runs the command; returns its exit code.  load: flags -> model."""
    began = time.perf_counter()
    if not values.constraint:
        raise UserError("no --constraint given", units.FORM)
    if not values.out and not values.dry_run:
        raise UserError("no --out given", "name the folder to write, --out=DIR")
    if values.num_samples < values.num_seeds and values.method == "incremental":
        raise UserError(
            f"{values.num_samples} samples are fewer than the {values.num_seeds} seeds",
            f"ask for at least {values.num_seeds} samples or give --num_seeds",
        )
    model = load(values)
    chosen = [units.parse_constraint(model, text)[0] for text in values.constraint]
    settings = Settings(
        rule=values.rule,
        method=values.method,
        distance=values.distance,
        memory=values.memory,
        walk=values.walk,
        encodings=certified.ENCODINGS if model.inverts else None,
        stop=values.stop,
        seed_steps=values.seed_steps,
        step=values.step,
        micro=values.batch,
    )
    try:
        settings = resolve(settings)
        check(settings)
    except ValueError as error:
        raise UserError(str(error), "`inverse-set sample --help` lists the flags") from None
    start = values.start or bind.default_start(model)
    bind.check_start(model, start)
    settings = _fitting(model, chosen, settings, values)
    wanted = values.num_samples if settings.method == "joint" else values.num_seeds
    if start in ("nearest", "natural") and wanted > len(model.starts):
        print(
            f"note: {wanted} starting codes are wanted and {len(model.starts)} are known: seeds "
            "that share one may stay alike",
            file=sys.stderr,
        )
    if values.dry_run:
        return dry_run.main(model, chosen, settings, values.num_samples, values.num_seeds, start)
    place = results.claim(values.out, values.overwrite)
    with place, progress.reporting(certified.EARLY) as told:
        found = certified.sample(
            model,
            values.constraint,
            values.num_samples,
            values.num_seeds,
            values.seed,
            settings,
            start,
            values.natural_codes,
            told,
        )
        saving = time.perf_counter()
        report.save(found, place, ["inverse-set", *sys.argv[1:]])
    summary, title = report.summary(found), report.title(found)
    summary["seconds"] += (
        f", saving {time.perf_counter() - saving:.1f}, total {time.perf_counter() - began:.1f}"
    )
    table = Table(title=lists.cell(title), box=None, show_header=False)
    for label, text in summary.items():
        table.add_row(label, lists.cell(text))
    table.add_row("written to", lists.cell(values.out))
    lists.show(table)
    return _verdict(found, values)


def _fitting(model, chosen, settings, values):
    """Settings whose steps fit into memory, with a note where that takes batches."""
    count = values.num_samples if settings.method == "joint" else values.num_seeds
    asked = values.batch is not None
    batch, note = memory.fit(model, chosen, values.num_samples, count, settings.micro, asked)
    if note:
        print(f"note: {note}", file=sys.stderr)
    return settings._replace(micro=batch)


def _verdict(found, values):
    """The exit code, and for anything but success the two lines that explain it."""
    code = CODES.get(found.status, errors.PARTIAL)
    result, n = found.result, len(found.samples.images)
    if code == 0:
        return 0
    what = f"{found.status.sentence} ({n} of {values.num_samples} samples)"
    remedy = "run the same command again with --overwrite"
    if found.status == Status.PARTIAL:
        what += f"; {result.seeds_inside} seeds lie inside, {found.dropped} samples were dropped"
        remedy = "try more --seed_steps, another --seed or a smaller --step"
    elif found.status == Status.INFEASIBLE:
        nearest = ", ".join(
            f"{c.name} reached {value:.4g} of [{c.low:.4g}, {c.high:.4g}]"
            for c, value in zip(found.constraints, np.atleast_1d(result.nearest), strict=True)
        )
        what += f"; nearest: {nearest}"
        remedy = "ask for an interval nearer to that, more --seed_steps, or another --start"
    elif found.status == Status.NON_FINITE:
        remedy = "try another --seed or a smaller --step"
    print(f"inverse-set: {errors.shown(what)}\n  {remedy}", file=sys.stderr)
    return code
