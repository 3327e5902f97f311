import jax.numpy as jnp
import numpy as np
import pytest

from inverse_set.errors import UserError
from inverse_set.models import caffenet, units, zoo
from inverse_set.models.base import Model
from inverse_set.models.units import Unit
from inverse_set.settings import Natural

LABELS = (
    "goldfish, Carassius auratus",
    "monarch, monarch butterfly, milkweed butterfly, Danaus plexippus",
    "king penguin, Aptenodytes patagonica",
    "German shepherd, German shepherd dog, alsatian",
    "Persian cat",
    "bow tie, bow-tie, bowtie",
)
QUANTILES = np.asarray([1, 50, 95, 99.9])
SHAPES = {
    "conv1": (32, 32, 4),
    "pool1": (16, 16, 4),
    "conv2": (16, 16, 12),
    "pool2": (8, 8, 12),
    "conv3": (8, 8, 20),
    "conv4": (8, 8, 20),
    "conv5": (8, 8, 16),
    "pool5": (4, 4, 16),
    "fc6": (128,),
    "fc7": (64,),
    "fc8": (len(LABELS),),
    "prob": (len(LABELS),),
}


def rising(shape):
    """`[Q, *shape]`: entry i of the flattened map has the percentiles i, i + 10, i + 20, i + 30."""
    entries = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return np.stack([entries + 10 * q for q in range(len(QUANTILES))])


def model_of(shapes, labels, natural):
    """A model whose networks return nothing: units and names ask for shapes alone."""

    def layers(images):
        return {name: jnp.zeros((len(images), *shape)) for name, shape in shapes.items()}

    return Model(
        generate=lambda codes: jnp.zeros((len(codes), 32, 32, 3)),
        layers=layers,
        encode="fc8",
        code_size=2,
        name="mini",
        labels=dict.fromkeys(("fc8", "prob"), labels),
        prior=Natural(),
        quantiles=QUANTILES,
        natural=natural,
    )


MODEL = model_of(
    SHAPES, LABELS, {layer: rising(SHAPES[layer]) for layer in ("conv5", "fc6", "fc8")}
)


@pytest.mark.parametrize(
    "text, unit",
    [
        ("fc8/0", Unit("fc8", (0,))),
        ("fc8/5", Unit("fc8", (5,))),
        ("prob/monarch", Unit("prob", (1,))),
        ("fc6/127", Unit("fc6", (127,))),
        ("fc8/monarch", Unit("fc8", (1,))),
        ("fc8/Monarch", Unit("fc8", (1,))),
        ("fc8/MONARCH BUTTERFLY", Unit("fc8", (1,))),
        ("fc8/milkweed_butterfly", Unit("fc8", (1,))),
        ("fc8/danaus-plexippus", Unit("fc8", (1,))),
        ("fc8/king_penguin", Unit("fc8", (2,))),
        ("fc8/King-Penguin", Unit("fc8", (2,))),
        ("fc8/ king   penguin ", Unit("fc8", (2,))),
        ("  fc8/german_shepherd_dog  ", Unit("fc8", (3,))),
        ("fc8/alsatian", Unit("fc8", (3,))),
        ("fc8/bow_tie", Unit("fc8", (5,))),
        ("fc8/bowtie", Unit("fc8", (5,))),
        ("conv5/12@4,3", Unit("conv5", (4, 3, 12))),
        ("conv5/0@0,7", Unit("conv5", (0, 7, 0))),
        ("conv5/12@ 4 , 3 ", Unit("conv5", (4, 3, 12))),
        ("conv5/12", Unit("conv5", (4, 4, 12))),
        ("conv1/3", Unit("conv1", (16, 16, 3))),
        ("pool5/15", Unit("pool5", (2, 2, 15))),
        ("pool5/15@3,0", Unit("pool5", (3, 0, 15))),
    ],
)
def test_units(text, unit):
    assert units.parse_unit(MODEL, text) == unit


@pytest.mark.parametrize(
    "text, name",
    [
        ("fc8/MONARCH_butterfly", "fc8/monarch"),
        ("fc8/2", "fc8/king penguin"),
        ("prob/2", "prob/king penguin"),
        ("fc6/17", "fc6/17"),
        ("conv5/12", "conv5/12@4,4"),
        ("conv5/12@0,7", "conv5/12@0,7"),
    ],
)
def test_names_are_read_back(text, name):
    unit = units.parse_unit(MODEL, text)
    assert units.unit_name(MODEL, unit) == name
    assert units.parse_unit(MODEL, name) == unit


@pytest.mark.parametrize(
    "text, position", [("fc8/monarch", (0, 0, 1)), ("conv5/12@3,7", (3, 7, 12))]
)
def test_positions_have_three_indices(text, position):
    assert units.parse_unit(MODEL, text).position == position


@pytest.mark.parametrize(
    "bounds, low, high",
    [
        ("1:2", 1.0, 2.0),
        ("-3.5:1e2", -3.5, 100.0),
        (" 0 : .5 ", 0.0, 0.5),
        ("p1:p50", 1.0, 11.0),
        ("p95:p99.9", 21.0, 31.0),
        ("p50:30", 11.0, 30.0),
        ("-1:p95", -1.0, 21.0),
        ("p25.5:p72.5", 6.0, 16.0),  # halfway between p1 and p50, and between p50 and p95
        ("p97.45:99", 26.0, 99.0),  # halfway between p95 and p99.9
    ],
)
def test_bounds(bounds, low, high):
    """Unit 1 has the percentiles p1, p50, p95, p99.9 at 1, 11, 21, 31."""
    unit, constraint = units.parse_constraint(MODEL, f"fc8/monarch:{bounds}")
    assert unit == Unit("fc8", (1,))
    assert constraint.name == "fc8/monarch"
    assert (constraint.low, constraint.high) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize(
    "text, median",
    [
        ("conv5/12@2,3:p50:9999", (2 * 8 + 3) * 16 + 12 + 10),
        ("conv5/12:p50:9999", (4 * 8 + 4) * 16 + 12 + 10),
        ("fc6/100:p50:9999", 100 + 10),
    ],
)
def test_percentiles_are_those_of_the_position(text, median):
    _, constraint = units.parse_constraint(MODEL, text)
    assert constraint.low == median
    assert constraint.name == text.split(":")[0]


def refused(function, text):
    with pytest.raises(UserError) as caught:
        function(MODEL, text)
    error = caught.value
    assert error.code == 2
    for line in (error.what, error.remedy):
        assert line.strip()
        assert line.splitlines() == [line]
    return error


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "::",
        "/:1:2",
        "fc8/:1:2",
        "fc8:1:2",
        "fc8/monarch",
        "fc8/monarch:1",
        "fc8/monarch:1:2:3",
        "a:b:fc8/monarch:1:2",
        "fc8/monarch::2",
        "fc8/monarch:1:",
        "fc8/monarch:one:2",
        "fc8/monarch:1:p",
        "fc8/monarch:q50:p95",
        "fc8/monarch:p50%:p95",
        "fc8/monarch:nan:2",
        "fc8/monarch:1:nan",
        "fc8/monarch:-inf:inf",
        "fc8/monarch:inf:2",
        "fc8/monarch:1:infinity",
        "fc8/monarch:1:1e999",
        "fc8/monarch:pnan:9",
        "fc8/monarch:1:pinf",
        "fc8/monarch:2:1",
        "fc8/monarch:2:2",
        "fc8/monarch:p95:p50",
        "fc8/monarch:p50:p50",
        "fc8/monarch:p95:20.9",
        "fc8/monarch:p0.5:p95",
        "fc8/monarch:p50:p99.95",
        "fc8/monarch:p50:p100",
        "fc8/monarch:p-5:p95",
        "fc7/3:p50:p95",  # no natural activations are known there
        "fc8/6:1:2",
        "fc8/-1:1:2",
        "fc8/1.0:1:2",
        "fc8/²:1:2",
        "fc8/" + "9" * 5000 + ":1:2",
        "fc6/128:1:2",
        "fc6/monarch:1:2",
        "conv5/16:1:2",
        "conv5/twelve:1:2",
        "conv5/12@:1:2",
        "conv5/12@4:1:2",
        "conv5/12@4,4,4:1:2",
        "conv5/12@4,x:1:2",
        "conv5/12@4.0,4:1:2",
        "conv5/12@8,0:1:2",
        "conv5/12@0,8:1:2",
        "conv5/12@-1,0:1:2",
        "conv5/12@0,-1:1:2",
        "conv5/@4,4:1:2",
        "pool5/3@4,0:1:2",
        "fc6/3@0,0:1:2",
        "fc8/monarch@0,0:1:2",
        "fc8/monarch@:1:2",
        "fc8/no such thing:1:2",
        "fc8/\x00:1:2",
        "fc8/mon\narch:1:2",
        "fc8\n/monarch:1:2",
        "fc6/3\n@0,0:1:2",
        "conv5/12@\n9,9:1:2",
        "relu6/3:1:2",
        "FC8/monarch:1:2",
        "conv9/3:1:2",
    ],
)
def test_constraints_that_cannot_be(text):
    refused(units.parse_constraint, text)


@pytest.mark.parametrize(
    "text", ["", " ", "/", "fc8", "fc8/", "/monarch", "fc8/nothing", "fc9/1", "fc8/99", "fc6/1@1,1"]
)
def test_units_that_cannot_be(text):
    refused(units.parse_unit, text)


@pytest.mark.parametrize(
    "text, remedy",
    [
        ("fc8/monarc:1:2", "did you mean monarch"),
        ("fc8/Monrach:1:2", "did you mean monarch"),
        ("fc8/king_pengin:1:2", "did you mean king penguin"),
        ("fc8/persian:1:2", "persian cat"),
        ("fc8/shepherd:1:2", "german shepherd"),
        ("fc8/zebra:1:2", "lists the classes"),
        ("conv_5/12:1:2", "did you mean conv5"),
        ("fc08/12:1:2", "did you mean fc8"),
        ("softmax/12:1:2", "its layers are conv1, pool1"),
        ("fc8/6:1:2", "0 to 5"),
        ("conv5/16:1:2", "0 to 15"),
        ("conv5/12@8,0:1:2", "rows are 0 to 7, columns 0 to 7"),
        ("fc6/monarch:1:2", "0 to 127"),
        ("fc6/3@0,0:1:2", "write fc6/3"),
        ("fc8/monarch:p50:p99.95", "p1 to p99.9"),
        ("fc7/3:p50:p95", "conv5, fc6, fc8"),
        ("fc8/monarch:3:2", "LOW < HIGH"),
        ("fc8/monarch:one:2", "fc8/monarch:p95:p99.9"),
    ],
)
def test_remedies_say_what_to_do(text, remedy):
    assert remedy in refused(units.parse_constraint, text).remedy


def test_errors_name_what_was_written():
    error = refused(units.parse_constraint, "fc8/monarc:1:2")
    assert "'monarc'" in error.what
    error = refused(units.parse_constraint, "fc8/monarch:3:2")
    assert "3 is not below the upper bound 2" in error.what


@pytest.fixture(scope="module")
def labelled():
    """{network: a model of a last layer alone} of every list of names that ships."""
    found = {name: caffenet.labels(name) for name in ("caffenet", "places205")}
    for subject in ("mini", "scenes"):
        network = zoo.load("mini", subject).subject
        found[network.name] = network.labels
    hostile = ("ratio 1:2", "hot/cold", "me@home", "me@home, you@home", "2:1, n01443537 tench")
    return found | {"hostile": hostile}


def of_labels(labels):
    shapes = {"fc8": (len(labels),), "prob": (len(labels),)}
    return model_of(shapes, labels, {})


@pytest.mark.parametrize("name", ["caffenet", "places205", "mini", "scenes", "hostile"])
@pytest.mark.parametrize("before", ["", "n01443537 "])
def test_every_printed_name_is_a_name(labelled, name, before):
    """As `inverse-set units` prints it, with commas and without; only equal labels need numbers."""
    labels = labelled[name]
    model = of_labels(labels)
    assert len(labels) == {"caffenet": 1000, "places205": 205, "mini": 200}.get(name, len(labels))
    shared = {label for label in labels if labels.count(label) > 1}
    assert shared == ({"crane"} if name == "caffenet" else set())
    for index, label in enumerate(labels):
        for written in {label, label.replace(",", ""), label.replace(" ", "_")}:
            text = f"fc8/{before}{written}:1:2"
            if label in shared:
                error = refused_by(model, text)
                assert "134" in error.remedy and "517" in error.remedy
                continue
            unit, constraint = units.parse_constraint(model, text)
            assert unit == Unit("fc8", (index,)), text
            assert (constraint.low, constraint.high) == (1, 2)
        if label not in shared:
            short = units.unit_name(model, Unit("fc8", (index,)))
            assert units.parse_unit(model, short).index == (index,), short


def test_a_synonym_of_several_classes_is_refused_unless_it_is_a_whole_name(labelled):
    model = of_labels(("bat, flying thing", "bat, club", "club"))
    assert "0 (bat" in refused_by(model, "fc8/bat:1:2").remedy
    assert units.parse_unit(model, "fc8/club").index == (2,)
    assert units.parse_unit(of_labels(labelled["caffenet"]), "fc8/missile").index == (657,)
    assert units.unit_name(model, Unit("fc8", (1,))) == "fc8/bat, club"


def refused_by(model, text):
    with pytest.raises(UserError) as caught:
        units.parse_constraint(model, text)
    return caught.value
