"""Contact sheet, animation and gallery page."""

import base64
import io
import re
from html.parser import HTMLParser
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from inverse_set import gallery, pictures


class Interval(NamedTuple):
    name: str
    low: float
    high: float


MONARCH = Interval("fc8/monarch", 9.0, 10.0)


def plain(n, height=8, width=8):
    """n pictures, each of one colour of its own."""
    colours = np.stack([np.arange(n) * 7 % 256, np.arange(n) * 31 % 256, np.arange(n)], axis=1)
    return np.broadcast_to(colours[:, None, None].astype(np.uint8), (n, height, width, 3))


def page(n=4, title="asked", summary=None, activations=None, constraints=(MONARCH,), **options):
    if activations is None:
        activations = np.linspace(9.9, 9.1, n, dtype=np.float32)[:, None]
    images, steps = plain(n), np.arange(n) * 5
    return gallery.page(images, activations, constraints, summary or {}, title, steps, **options)


class Reader(HTMLParser):
    """Collects `(tag, attributes)` and the text outside style and script."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    def all(self, tag, **wanted):
        rows = [attributes for name, attributes in self.tags if name == tag]
        return [row for row in rows if all(row.get(k) == v for k, v in wanted.items())]


@pytest.mark.parametrize(
    ("n", "limit"), [(0, 5), (1, 5), (5, 5), (6, 5), (7, 5), (1000, 7), (9, 1)]
)
def test_spread(n, limit):
    found = pictures.spread(n, limit)
    assert len(found) == min(n, limit)
    if n:
        assert found[0] == 0
    if min(n, limit) > 1:
        assert found[-1] == n - 1
        gaps = np.diff(found)
        assert gaps.min() >= 1
        assert gaps.max() - gaps.min() <= 1


def test_png_is_exact():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    with Image.open(io.BytesIO(pictures.png(image)), formats=("PNG",)) as picture:
        np.testing.assert_array_equal(np.asarray(picture), image)


@pytest.mark.parametrize(("side", "scale"), [(32, 3), (28, 3), (64, 2), (224, 1), (512, 0.5)])
def test_readable_scale(side, scale):
    assert pictures.readable_scale(np.zeros((1, side, side, 3), np.uint8), 96) == scale


@pytest.mark.parametrize(
    ("n", "columns", "rows"), [(1, 1, 1), (7, 7, 1), (25, 10, 3), (250, 10, 10)]
)
def test_grid_dimensions(n, columns, rows):
    sheet = pictures.grid(plain(n, 32, 32))
    assert sheet.mode == "RGB"
    assert sheet.size == (6 + columns * 102, 6 + rows * 102)  # 96 pixels and a gutter of 6


def test_grid_places():
    images = plain(3, 4, 2)
    sheet = np.asarray(pictures.grid(images, columns=2, scale=2))  # tiles 4 x 8, gutters 4
    expected = np.full((28, 20, 3), 255, np.uint8)
    expected[4:12, 4:8], expected[4:12, 12:16], expected[16:24, 4:8] = images[:, 0, 0][
        :, None, None
    ]
    np.testing.assert_array_equal(sheet, expected[:, :20])


def test_animation_frames():
    data = pictures.animation(plain(12, 16, 8), limit=5, duration=70)
    with Image.open(io.BytesIO(data), formats=("WEBP",)) as film:
        assert (film.n_frames, film.size, film.info["loop"]) == (5, (64, 128), 0)
        for frame, index in enumerate(pictures.spread(12, 5)):
            film.seek(frame)
            film.load()
            assert film.info["duration"] == 70
            middle = np.asarray(film.convert("RGB"), int)[64, 32]
            assert np.abs(middle - plain(12)[index, 0, 0]).max() < 8


def test_animation_of_one():
    with Image.open(io.BytesIO(pictures.animation(plain(1))), formats=("WEBP",)) as film:
        assert film.size == (128, 128)


def test_gallery_embeds_every_picture_exactly_in_order_of_activation():
    cards = Reader(page()).all("figure", **{"class": "card"})
    assert [card["data-rank"] for card in cards] == ["3", "2", "1", "0"]
    sources = [img["src"] for img in Reader(page()).all("img")]
    for source, image in zip(sources, plain(4)[::-1], strict=True):
        data = base64.b64decode(source.removeprefix("data:image/png;base64,"), validate=True)
        with Image.open(io.BytesIO(data)) as picture:
            np.testing.assert_array_equal(np.asarray(picture), image)


def test_gallery_says_activation_beneath_and_in_words():
    reader = Reader(page(2))
    assert [text for text in reader.texts if re.fullmatch(r"9\.\d\d", text)] == ["9.10", "9.90"]
    words = [img["alt"] for img in reader.all("img")]
    assert words[0] == "Sample 1, step 5: fc8/monarch 9.10, inside [9, 10]"


def test_gallery_needs_nothing_from_outside():
    source = page(3, summary={"Model": "mini"})
    assert "http:" not in source and "https:" not in source
    reader = Reader(source)
    assert not reader.all("link") and not reader.all("iframe")
    assert all("src" not in script for script in reader.all("script"))
    assert all(img["src"].startswith("data:") for img in reader.all("img"))
    assert "url(" not in source and "@import" not in source
    assert "default-src 'none'" in source


def test_gallery_escapes_what_it_is_told():
    evil = "<script>alert('1')</script>\"$title"
    harmless = Reader(page())
    reader = Reader(
        page(title=evil, summary={evil: evil}, constraints=(Interval(evil, 9.0, 10.0),))
    )
    assert [tag for tag, _ in reader.tags] == [
        *[tag for tag, _ in harmless.tags][: [t for t, _ in harmless.tags].index("dl") + 1],
        "div", "dt", "dd",
        *[tag for tag, _ in harmless.tags][[t for t, _ in harmless.tags].index("dl") + 1 :],
    ]  # fmt: skip
    assert reader.texts.count(evil) == 5  # title, heading, label, value, name of the histogram
    assert evil in reader.all("img")[0]["alt"]


def test_gallery_shows_a_part_and_tells_of_all():
    source = page(40, limit=10)
    assert len(Reader(source).all("img")) == 10
    assert "10 of 40 samples" in source
    assert "40 of 40 inside" in source


def test_gallery_marks_what_is_outside():
    activations = np.array([[9.5, 1.0], [9.6, 3.0], [10.5, 1.0]])
    source = page(3, activations=activations, constraints=(MONARCH, Interval("b", -np.inf, 2.0)))
    reader = Reader(source)
    assert [card["data-rank"] for card in reader.all("figure", **{"class": "card miss"})] == [
        "1",
        "2",
    ]
    assert reader.all("img")[1]["alt"].endswith("b 3.00, outside [\N{MINUS SIGN}∞, 2]")
    assert len(reader.all("svg")) == 2


def test_gallery_survives_activations_that_are_not_finite():
    source = page(3, activations=np.array([[np.nan], [9.5], [np.inf]]))
    cards = Reader(source).all("figure", tabindex="0")
    assert [card["data-rank"] for card in cards] == ["1", "2", "0"]
    assert "1 of 3 inside [9, 10], 2 not finite" in source


def bars(values, constraint):
    """`(kind, left edge, height)` of every bar, edge in percent of the axis, height in percent."""
    reader = Reader(gallery.histogram(np.asarray(values), constraint))
    pitch = 100 / gallery.BINS
    return [
        (bar["class"], round(float(bar["x"]) / pitch - 0.06, 2) * pitch, float(bar["height"]))
        for bar in reader.all("rect")
    ]


def test_histogram_bins_reach_from_bound_to_bound():
    assert bars([9.0, 10.0, 10.0], MONARCH) == [("in", 0.0, 50.0), ("in", 96.875, 100.0)]


def test_histogram_splits_a_bar_at_the_bound():
    constraint = Interval("a", 0.0, 31.5)  # axis 0 to 32, the last bin is 31 to 32
    assert bars([31.2, 31.4, 31.6, 32.0], constraint) == [
        ("in", 96.875, 50.0),
        ("out", 96.875, 50.0),
    ]


def test_histogram_draws_the_bounds():
    lines = Reader(gallery.histogram(np.array([8.0, 12.0]), MONARCH)).all("line")
    assert [float(line["x1"]) for line in lines] == [25.0, 50.0]
    one = gallery.histogram(np.array([8.0]), Interval("a", -np.inf, 10.0))
    assert len(Reader(one).all("line")) == 1


@pytest.mark.parametrize("low", [5.0, -np.inf, -1e308])
@pytest.mark.parametrize("high", [5.0, np.inf, 1e308])
@pytest.mark.parametrize("values", [[], [5.0], [np.nan], [5.0, 5.0 + 1e-9], [-3e38, 3e38]])
def test_histogram_of_degenerate_data(low, high, values):
    source = gallery.histogram(np.array(values), Interval("a", low, high))
    assert "nan" not in source
    heights = [float(bar["height"]) for bar in Reader(source).all("rect")]
    assert sum(heights) >= 99.9 if np.isfinite(values).any() else not heights
