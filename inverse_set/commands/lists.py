"""`inverse-set units` and `inverse-set models`."""

import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from inverse_set.convert import home
from inverse_set.errors import UserError, shown
from inverse_set.models import units as unit_names
from inverse_set.models import zoo
from inverse_set.models.units import Unit

SHOWN = (1.0, 50.0, 95.0, 99.0, 99.9)


def show(table):
    """Prints a table; never folds it where the output is no terminal."""
    width = None if sys.stdout.isatty() else 200
    Console(width=width).print(table)


def cell(text):
    """A text from outside for a table: neither markup nor anything that steers a terminal."""
    return escape(shown(text))


def units(model, layer):
    """Lists a layer's units, their names and natural percentiles."""
    network = model.subject
    if layer is None:
        layer = "fc8" if "fc8" in network.shapes else list(network.shapes)[-1]
    if layer not in network.shapes:
        raise UserError(
            f"{network.name} has no layer {layer!r}",
            "its layers are " + ", ".join(network.shapes),
        )
    shape, known = network.shapes[layer], layer in network.natural
    title = "natural activations" if known else "natural activations are not known"
    table = Table(title=f"{network.name} {layer} {shape}: {title}", box=None)
    table.add_column("unit", justify="right")
    table.add_column("name")
    for percentile in SHOWN if known else ():
        table.add_column(f"p{percentile:g}", justify="right")
    for channel in range(shape[-1]):
        centre = tuple(size // 2 for size in shape[:-1])
        unit = Unit(layer, (*centre, channel))
        values = [unit_names.natural_percentile(model, unit, p) for p in SHOWN if known]
        named = unit_names.named(network, layer)
        label = network.names[layer][channel] if named else f"{layer}/{channel}"
        table.add_row(str(channel), cell(label), *(f"{value:.2f}" for value in values))
    show(table)
    return 0


def models():
    """Lists the models, what each needs and whether its weights are here."""
    table = Table(box=None)
    for title in ("model", "what it is", "weights", "here"):
        table.add_column(title)
    for name, text in (zoo.NAMES | zoo.SUBJECTS).items():
        paths = zoo.files(name)
        here = [path.name for path in paths if path.exists()]
        answer = "yes" if len(here) == len(paths) else f"only {here[0]}" if here else "no"
        table.add_row(name, text, ", ".join(path.name for path in paths), answer)
    show(table)
    print(f"converted weights are kept in {shown(home.folder())} (set INVERSE_SET_HOME to move it)")
    return 0
