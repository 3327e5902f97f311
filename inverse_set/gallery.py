"""The gallery page of a sample set: one offline HTML file.

Arrays in, text out.  `images` is uint8 `[n, H, W, 3]` (RGB, 0 to 255), and a constraint is anything
with the attributes `name`, `low` and `high` (interval in units of the neuron's output; either end
may be infinite).
"""

import base64
import html
import math
import string

import numpy as np

from inverse_set.pictures import encode, png, spread

PIXELS_PNG = 64  # up to this longest side the page embeds exact PNGs, above it WebP
BINS = 32
_MINUS = "\N{MINUS SIGN}"


def page(images, activations, constraints, summary, title, steps, limit=500):
    """One offline HTML page: summary, a histogram a constraint, the pictures by first activation.

    activations: float `[n, P]`, in units of the neurons' outputs, one column a constraint.
    summary: dict label -> text, shown in its order.  title: what was asked, one line.
    steps: int `[n]`, the step each sample was taken at.
    limit: most pictures shown, evenly spread; histograms and the count always tell of all n.
    """
    shown = spread(len(images), limit)
    first = activations[shown, 0]
    order = np.lexsort((first, np.isnan(first)))  # ties keep the order of sampling
    forms = [_form(activations[:, p], c) for p, c in enumerate(constraints)]
    cards = [
        _card(images[i], activations[i], constraints, forms, f"Sample {i}, step {steps[i]}", rank)
        for rank, i in zip(order, shown[order], strict=True)
    ]
    facts = [
        f"<div><dt>{_text(label)}</dt><dd>{_text(said)}</dd></div>"
        for label, said in summary.items()
    ]
    return _PAGE.substitute(
        title=_text(title),
        facts="".join(facts),
        plots="".join(histogram(activations[:, p], c) for p, c in enumerate(constraints)),
        count=f"{len(shown)} of {len(images)}" if len(shown) < len(images) else len(images),
        first=_text(constraints[0].name),
        cards="\n".join(cards),
        tile=96 if max(images.shape[1:3]) <= PIXELS_PNG else 144,
    )


def histogram(values, constraint):
    """HTML figure with an inline SVG: how often each activation occurs, the bounds drawn.

    values: float `[n]`; those that are not finite are left out and counted in words.
    Bins are equal and reach exactly over bounds and data, so with all samples inside the outer
    edges are the bounds.  Where a bin straddles a bound, its bar is split by colour.
    """
    values = np.asarray(values, np.float64)
    finite = values[np.isfinite(values)]
    inside = finite[(finite >= constraint.low) & (finite <= constraint.high)]
    start, end = _axis(values, constraint)
    counts, _ = np.histogram(finite, BINS, (start, end))
    kept, _ = np.histogram(inside, BINS, (start, end))
    unit = 100 / max(1, counts.max())
    bars = [_bar("in", i, 0, unit * k) for i, k in enumerate(kept) if k]
    pairs = enumerate(zip(kept, counts, strict=True))
    bars += [_bar("out", i, unit * k, unit * c) for i, (k, c) in pairs if c > k]
    bounds = {b: 100 * (b - start) / (end - start) for b in _bounds(constraint)}
    lines = [f'<line x1="{x:.3f}" x2="{x:.3f}" y1="0" y2="100"/>' for x in bounds.values()]
    marks = {_number(b): x for b, x in bounds.items()}
    if len(bounds) == 2 and np.ptp(list(bounds.values())) < 15:  # too close for a label each
        marks = {_interval(constraint): sum(bounds.values()) / 2}
    form = _form(values, constraint)
    ends = {_number(start, form): 0, _number(end, form): 100}
    ticks = [_tick("bound", text, x) for text, x in marks.items()]
    ticks += [
        _tick("end", text, x)
        for text, x in ends.items()
        if all(abs(x - y) > 20 for y in marks.values())
    ]
    said = f"{len(inside)} of {len(values)} inside {_interval(constraint)}"
    said += f", {len(values) - len(finite)} not finite" if len(finite) < len(values) else ""
    name = _text(constraint.name)
    return (
        f"<figure class=plot><figcaption><b>{name}</b> <span>{said}</span></figcaption>"
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" '
        f'aria-label="Histogram of the activation of {name}: {said}">{"".join(bars + lines)}</svg>'
        f'<div class=ticks aria-hidden="true">{"".join(ticks)}</div></figure>\n'
    )


def _text(value):
    return html.escape(str(value))


def _bounds(constraint):
    """The ends of the interval that can be drawn; beyond 1e150 an end counts as infinite."""
    return [b for b in (float(constraint.low), float(constraint.high)) if abs(b) < 1e150]


def _axis(values, constraint):
    """From the least to the greatest of finite values and bounds; never of width 0."""
    marks = [*_bounds(constraint), *map(float, values[np.isfinite(values)])]
    start, end = min(marks, default=0.0), max(marks, default=0.0)
    margin = 1e-3 * max(1.0, abs(start), abs(end))
    return (start, end) if end - start > 1e-6 * margin else (start - margin, end + margin)


def _form(values, constraint):
    """Format whose decimals, 0 to 9, tell activations apart in the interval, or on the axis."""
    start, end = _axis(values, constraint)
    bounds = _bounds(constraint)
    width = bounds[1] - bounds[0] if len(bounds) == 2 and bounds[0] < bounds[1] else end - start
    return f".{min(9, max(0, 2 - math.floor(math.log10(width))))}f"


def _number(value, form=".5g"):
    """A number with a true minus sign; large ones in powers of ten.."""
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: f"{_MINUS}∞"}.get(float(value), "not a number")
    return f"{float(value):{form if abs(value) < 1e6 else '.4g'}}".replace("-", _MINUS)


def _interval(constraint):
    return f"[{_number(constraint.low)}, {_number(constraint.high)}]"


def _bar(kind, i, base, top):
    """A bar of bin `i` from height `base` to `top`, both in percent of the plot."""
    wide = 100 / BINS
    place = f'x="{(i + 0.06) * wide:.3f}" y="{100 - top:.3f}"'
    size = f'width="{0.88 * wide:.3f}" height="{top - base:.3f}"'
    return f'<rect class="{kind}" {place} {size}/>'


def _tick(kind, text, x):
    """A label under the axis at `x` percent; at 0 it starts there, at 100 it ends there."""
    return f'<span class="{kind}" style="left:{x:.2f}%;--x:{-x:.0f}%">{text}</span>'


def _card(image, values, constraints, forms, name, rank):
    """One picture of the page with its first activation beneath and all of them as alt text.

    values: float `[P]`.  rank: place in the order of sampling among the pictures shown.
    """
    small = max(image.shape[:2]) <= PIXELS_PNG
    data = png(image) if small else encode(image, "WEBP", quality=90, method=0)
    source = f"data:image/{'png' if small else 'webp'};base64,{base64.b64encode(data).decode()}"
    inside = [c.low <= v <= c.high for v, c in zip(values, constraints, strict=True)]
    said = [
        f"{c.name} {_number(v, form)}, {'inside' if held else 'outside'} {_interval(c)}"
        for v, c, form, held in zip(values, constraints, forms, inside, strict=True)
    ]
    words = _text(f"{name}: {'; '.join(said)}")
    return (
        f'<figure class="{"card" if all(inside) else "card miss"}" data-rank="{rank}" tabindex="0">'
        f'<img src="{source}" alt="{words}" title="{words}" '
        f'width="{image.shape[1]}" height="{image.shape[0]}" decoding="async">'
        f"<figcaption>{_number(values[0], forms[0])}</figcaption></figure>"
    )


_PAGE = string.Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
:root { --page: #fcfcfa; --ink: #1d1d1b; --soft: #6a6a65; --rule: #e5e4de;
  --mark: #35618f; --miss: #b4502f }
@media (prefers-color-scheme: dark) { :root { --page: #151617; --ink: #e9e7e2; --soft: #9c9a94;
  --rule: #303132; --mark: #86b0db; --miss: #e58a66 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); overflow-x: clip;
  font: 16px/1.5 ui-sans-serif, system-ui, -apple-system, "Segoe UI", Inter, sans-serif }
main { max-width: 76rem; margin: 0 auto;
  padding: clamp(1.5rem, 5vw, 4rem) clamp(1rem, 4vw, 2.5rem) }
h1 { margin: 0 0 2rem; font-size: clamp(1.5rem, 4vw, 2.25rem); line-height: 1.2; font-weight: 600;
  letter-spacing: -.02em; text-wrap: balance; overflow-wrap: anywhere }
figure, dl, dd, fieldset { margin: 0; padding: 0; border: 0 }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(11rem, 42%), 1fr));
  gap: 1.25rem 2rem; padding: 1.25rem 0; border-block: 1px solid var(--rule) }
dt, .plot span, .bar, .card figcaption { font-size: .8125rem; color: var(--soft) }
dd { overflow-wrap: anywhere; font-variant-numeric: tabular-nums }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr));
  gap: 2.5rem; margin: 2.5rem 0 3rem }
.plot figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1rem;
  margin-bottom: .75rem; overflow-wrap: anywhere }
.plot b { font-weight: 600 }
.plot svg { display: block; width: 100%; height: 8.5rem; overflow: visible;
  border-bottom: 1px solid var(--soft) }
.in { fill: var(--mark) } .out { fill: var(--miss) }
line { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 4 3;
  vector-effect: non-scaling-stroke }
.ticks { position: relative; height: 1.5rem; margin-top: .3rem;
  font-variant-numeric: tabular-nums }
.ticks span { position: absolute; transform: translateX(var(--x)); white-space: nowrap }
.ticks .bound { color: var(--ink); font-weight: 600 }
.bar { display: flex; flex-wrap: wrap; justify-content: space-between; align-items: center;
  gap: .5rem 1rem; margin-bottom: 1.25rem }
fieldset { display: flex; align-items: center; gap: .25rem }
fieldset[hidden] { display: none }
legend { float: left; padding: 0; margin-right: .5rem }
label { position: relative; padding: .25rem .75rem; border-radius: 99px; cursor: pointer }
label:has(:checked) { background: var(--rule); color: var(--ink) }
label:has(:focus-visible) { outline: 2px solid var(--mark) }
input { position: absolute; inset: 0; margin: 0; opacity: 0; cursor: pointer }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(${tile}px, 21%), 1fr));
  gap: 1rem .75rem }
.card { text-align: center; outline: 0 }
.card img { display: block; width: 100%; height: auto; border-radius: 4px; position: relative;
  transform-origin: var(--from, 50% 100%); transition: transform .16s ease-out, box-shadow .16s }
.card figcaption { margin-top: .3rem; font-variant-numeric: tabular-nums }
.miss figcaption { color: var(--miss); font-weight: 600 }
.card:hover img, .card:focus img { transform: scale(2.2); z-index: 2; box-shadow: 0 3px 14px #0007 }
.card:focus-visible figcaption { color: var(--ink); text-decoration: underline }
.card:hover figcaption { color: var(--ink) }
@media (prefers-reduced-motion: reduce) { .card img { transition: none } }
</style>
</head>
<body>
<main>
<h1>$title</h1>
<dl>$facts</dl>
<section class="plots" aria-label="Activations">$plots</section>
<section aria-label="Samples">
<div class="bar"><span>$count samples, beneath each its activation of $first</span>
<fieldset hidden><legend>Order</legend>
<label><input type="radio" name="order" value="activation" checked>activation</label>
<label><input type="radio" name="order" value="sampling">sampling</label></fieldset></div>
<div class="cards">
$cards
</div>
</section>
</main>
<script>
const cards = document.querySelector(".cards"), choice = document.querySelector("fieldset");
const orders = { activation: [...cards.children] };
orders.sampling = [...cards.children].sort((a, b) => a.dataset.rank - b.dataset.rank);
choice.hidden = false;
choice.querySelector("input").checked = true;
choice.addEventListener("change", event => cards.replaceChildren(...orders[event.target.value]));
function grow(event) { // away from the edges of the window
  const card = event.target.closest(".card");
  if (!card) return;
  const box = card.getBoundingClientRect(), middle = box.left + box.width / 2;
  const reach = 1.15 * box.width, wide = document.documentElement.clientWidth;
  const x = middle < reach ? "0%" : wide - middle < reach ? "100%" : "50%";
  card.style.setProperty("--from", x + (box.top < 1.25 * box.width ? " 0%" : " 100%"));
}
cards.addEventListener("pointerover", grow);
cards.addEventListener("focusin", grow);
</script>
</body>
</html>
""")
