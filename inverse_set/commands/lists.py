"""`inverse-set units` and `inverse-set models`."""

import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from inverse_set.errors import UserError
from inverse_set.models import units as unit_names
from inverse_set.models import zoo

SHOWN = (1.0, 50.0, 95.0, 99.0, 99.9)


def show(table):
    """Prints a table; never folds it where the output is no terminal."""
    width = None if sys.stdout.isatty() else 200
    Console(width=width).print(table)


def units(name, layer):
    """Lists a layer's units, their names and natural percentiles."""
    model = zoo.load(name)
    if layer not in model.shapes:
        raise UserError(
            f"{name} has no layer {layer!r}", "its layers are " + ", ".join(model.shapes)
        )
    shape = model.shapes[layer]
    table = Table(title=f"{name} {layer} {shape}: natural activations", box=None)
    table.add_column("unit", justify="right")
    table.add_column("name")
    known = layer in model.natural
    for percentile in SHOWN if known else ():
        table.add_column(f"p{percentile:g}", justify="right")
    for channel in range(shape[-1]):
        centre = tuple(size // 2 for size in shape[:-1])
        unit = zoo.Unit(layer, (*centre, channel))
        values = [unit_names.natural_percentile(model, unit, p) for p in SHOWN if known]
        label = unit_names.unit_name(model, unit).partition("/")[2]
        table.add_row(str(channel), escape(label), *(f"{value:.2f}" for value in values))
    show(table)
    return 0


def models():
    """Lists the models, what each needs and whether its weights are here."""
    table = Table(box=None)
    for title in ("model", "what it is", "weights", "here"):
        table.add_column(title)
    for name, text in zoo.NAMES.items():
        paths = zoo.files(name)
        here = "yes" if all(path.exists() for path in paths) else "no"
        table.add_row(name, text, ", ".join(path.name for path in paths), here)
    show(table)
    return 0
