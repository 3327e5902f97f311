"""What a person writes, `fc8/monarch:p95:p99.9`, as a unit of a model and an interval."""

import difflib
import functools
import math
import re
from typing import Any, NamedTuple

import numpy as np

from inverse_set.errors import UserError
from inverse_set.types import Constraint

FORM = "write LAYER/UNIT:LOW:HIGH, for example fc8/monarch:p95:p99.9 or conv5/12@8,8:3.5:6"


class Unit(NamedTuple):
    """One neuron: a layer, an index into one input's activations of it, and a network's name.

    network: None is the network that constraints mean unless they say otherwise.
    """

    layer: str
    index: tuple
    network: str | None = None

    @property
    def position(self):
        """The index as `[row, column, channel]`; the axes that a layer has not are 0."""
        return (0,) * (3 - len(self.index)) + tuple(self.index)


def parse_constraint(model, text):
    """`[NETWORK.]LAYER/UNIT[@row,col]:LOW:HIGH` -> (`Unit`, `Constraint`).

    UNIT: a 0-based index or a class's name: its whole label, or one of the synonyms in it.
    LOW, HIGH: numbers in the neuron's units, or percentiles of its natural activations such as
    p99.9; one of them may be -inf or inf.  Raises UserError.
    """
    parts = text.rsplit(":", 2)
    if len(parts) != 3:
        raise UserError(f"{text!r} is not a constraint", FORM)
    unit = parse_unit(model, parts[0])
    low, high = (_bound(model, unit, part.strip(), text) for part in parts[1:])
    if low >= high:
        raise UserError(
            f"{text!r}: the lower bound {low:g} is not below the upper bound {high:g}",
            "give LOW < HIGH, in the neuron's own units or as percentiles",
        )
    if not math.isfinite(low) and not math.isfinite(high):
        raise UserError(f"{text!r} bounds nothing", "give a number for one end at least")
    scale = 1.0
    if not math.isfinite(high - low):
        scale = _spread(model, unit, low if math.isfinite(low) else high)
    return unit, Constraint(parts[0].strip(), low, high, scale)


def parse_unit(model, text):
    """`[NETWORK.]LAYER/UNIT[@row,col]` -> `Unit`; the default position is the centre of the map.

    NETWORK: one of the model's by name; the subject by default.
    """
    place, slash, rest = text.strip().partition("/")
    if not slash or not rest:
        raise UserError(f"{text!r} names no unit", FORM)
    owners_name, dot, layer = place.rpartition(".")
    if place in model.subject.shapes:  # names of a user's layers may have dots
        owners_name, dot, layer = "", "", place
    owner = _network(model, owners_name) if dot else model.subject
    if layer not in owner.shapes:
        raise UserError(
            f"{owner.name} has no layer {layer!r}",
            _suggest(layer, owner.shapes, "its layers are " + ", ".join(owner.shapes)),
        )
    shape = owner.shapes[layer]
    name, at, place = (part.strip() for part in rest.partition("@"))
    if named(owner, layer) and _classes(owner, layer, rest)[0]:
        name, at, place = rest.strip(), "", ""  # an @ in a class's own name
    channel = _channel(owner, layer, name.strip(), shape[-1])
    network = owner.name if dot else None
    if len(shape) == 1:
        if at:
            raise UserError(
                f"{layer} has no positions, {text!r} asks for one", f"write {layer}/{name}"
            )
        return Unit(layer, (channel,), network)
    middle = tuple(size // 2 for size in shape[:-1])
    position = _position(place, shape[:-1], text) if at else middle
    return Unit(layer, (*position, channel), network)


def _network(model, name):
    for network in model.networks:
        if network.name == name:
            return network
    known = [network.name for network in model.networks]
    raise UserError(
        f"there is no network {name!r} here",
        _suggest(name, known, f"{' and '.join(known)} can be named; --subject adds another"),
    )


def _channel(network, layer, name, count):
    if name.isdecimal():
        index = int(name[:9]) if len(name) < 10 else count
        if index < count:
            return index
        raise UserError(
            f"{layer} has no unit {name}", f"its units are 0 to {count - 1} (`inverse-set units`)"
        )
    if not named(network, layer):
        known = f"only units of {' and '.join(network.names)} have names"
        raise UserError(
            f"unit {name!r} of {layer} is no number",
            f"units of {layer} are 0 to {count - 1}" + f"; {known}" * bool(network.names),
        )
    found, synonyms = _classes(network, layer, name)
    if len(found) > 1:
        raise UserError(
            f"{len(found)} classes of {network.name} are called {name!r}",
            "say which by number: "
            + " or ".join(f"{i} ({network.names[layer][i]})" for i in found),
        )
    if found:
        return found[0]
    raise UserError(
        f"{network.name} has no class {name!r}",
        _suggest(_plain(name), synonyms, "`inverse-set units` lists the classes"),
    )


def _classes(network, layer, name):
    """(numbers of the classes that a name may mean, every name in its plain form).

    The whole label comes first, as `inverse-set units` prints it: of "maillot" and "maillot, tank
    suit" the one is meant that is called so and no more.  Then one of the synonyms in it.
    """
    whole, synonyms = _names(tuple(network.names[layer]))
    wanted = _plain(name)
    return whole.get(wanted) or sorted(set(synonyms.get(wanted, ()))), synonyms


@functools.cache
def _names(labels):
    """Classes by their whole labels and by the synonyms in them: {plain name: numbers}, twice."""
    whole, synonyms = {}, {}
    for index, label in enumerate(labels):
        whole.setdefault(_plain(label), []).append(index)
        for synonym in label.split(","):
            synonyms.setdefault(_plain(synonym), []).append(index)
    return whole, synonyms


def named(network, layer):
    """Whether the layer's units have names, as classes have."""
    return layer in network.names


def _plain(name):
    """The words of a name alone, without the WordNet number that may stand before them."""
    words = re.sub(r"[\s_,/-]+", " ", name.lower()).strip()
    return re.sub(r"^n\d{8} (?=.)", "", words)


def _suggest(word, choices, otherwise):
    near = difflib.get_close_matches(word, list(choices), 3, 0.6)
    near += [c for c in choices if len(word) > 2 and word in c and c not in near][:3]
    return f"did you mean {' or '.join(near)}? ({otherwise})" if near else otherwise


def _position(place, sides, text):
    """`row,col` of a map, or as many numbers as the layer has axes beside its channels."""
    try:
        position = tuple(int(part) for part in place.split(","))
    except ValueError:
        raise UserError(f"{text!r}: {place!r} is no position", "write @row,col") from None
    if len(position) != len(sides):
        raise UserError(
            f"{text!r}: {place!r} is no position",
            "write @row,col" if len(sides) == 2 else f"write @ and {len(sides)} numbers",
        )
    if not all(0 <= index < side for index, side in zip(position, sides, strict=True)):
        names = ("rows are", "columns") if len(sides) == 2 else ("places are", *("",) * 9)
        ranges = (f"{n} 0 to {side - 1}".strip() for n, side in zip(names, sides, strict=False))
        raise UserError(f"{text!r}: position {place} lies outside the map", ", ".join(ranges))
    return position


def _bound(model, unit, text, whole):
    percentile = text.startswith("p")
    try:
        value = float(text[1:] if percentile else text)
    except ValueError:
        value = math.nan
    if not percentile and text.lstrip("+-") == "inf":
        return value
    if not abs(value) < 1e30:
        raise UserError(f"{whole!r}: {text!r} is no number and no percentile", FORM)
    return natural_percentile(model, unit, value, whole) if percentile else value


def _spread(model, unit, bound):
    """A length in the neuron's units: a half of its natural range, or of the bound's size."""
    network = model.owner(unit)
    if unit.layer in network.natural:
        column = network.natural[unit.layer][(slice(None), *unit.index)]
        if (width := float(np.ptp(column)) / 2) > 0:
            return width
    return max(abs(bound) / 2, 1e-3)


def natural_percentile(model, unit, percentile, whole=None):
    """The unit's activation at a percentile of natural pictures, interpolated linearly."""
    network = model.owner(unit)
    if unit.layer not in network.natural:
        known = f"; percentiles are known for {', '.join(network.natural)}" * bool(network.natural)
        raise UserError(
            f"{network.name} knows no natural activations of {unit.layer}",
            f"give numbers instead{known}",
        )
    first, last = network.quantiles[0], network.quantiles[-1]
    if not first <= percentile <= last:
        raise UserError(
            f"{whole or unit.layer}: percentile p{percentile:g} is out of range",
            f"percentiles from p{first:g} to p{last:g} are known",
        )
    column = network.natural[unit.layer][(slice(None), *unit.index)]
    return float(np.interp(percentile, network.quantiles, column))


def unit_name(model, unit):
    """A short name for people: `fc8/monarch`, `conv5/12@8,8`, `places205.fc8/gas station`."""
    channel, network = unit.index[-1], model.owner(unit)
    layer = f"{network.name}.{unit.layer}" if len(model.networks) > 1 else unit.layer
    if named(network, unit.layer):
        label = network.names[unit.layer][channel]
        short = label.split(",")[0]
        known = _classes(network, unit.layer, short)[0] == [channel]
        return f"{layer}/{short if known else label}"
    place = f"@{','.join(map(str, unit.index[:-1]))}" if len(unit.index) > 1 else ""
    return f"{layer}/{channel}{place}"


class Target(tuple):
    """Constraints as texts, all of which hold at once; `&` joins two (eq. 12)."""

    __slots__ = ()

    def __and__(self, other):
        return Target((*self, *other))

    def __repr__(self):
        return " & ".join(self)


class Chosen(NamedTuple):
    """A unit of a model, of which intervals can be asked."""

    model: Any
    unit: Unit

    def between(self, low, high):
        """`Target` low <= f(x) <= high: numbers in the unit's own scale, or texts such as "p99".

        Texts are percentiles of its natural activations.  Raises UserError for bounds that are
        none, or percentiles that the model does not know.
        """
        text = f"{unit_name(self.model, self.unit)}:{_written(low)}:{_written(high)}"
        parse_constraint(self.model, text)
        return Target((text,))

    def above(self, low):
        """`Target` low <= f(x)."""
        return self.between(low, math.inf)

    def below(self, high):
        """`Target` f(x) <= high."""
        return self.between(-math.inf, high)

    def __repr__(self):
        return f"<unit {unit_name(self.model, self.unit)} of {self.model.name}>"


def _written(bound):
    return bound if isinstance(bound, str) else repr(float(bound))
