"""Pictures of a sample set: contact sheet and animation.

Arrays in; Pillow pictures or bytes out.  No file is read or written here.  Throughout, `images` is
uint8 `[n, H, W, 3]` (RGB, 0 to 255).
"""

import io
import struct
import warnings

import numpy as np
from PIL import Image, ImageDraw

PLOT = 96  # pixels a side of the drawing of an input that is no picture
INKS = ("#35618f", "#b4502f", "#4d7c43", "#7a5195", "#8a6d1f", "#2f8f8a", "#a33e6b", "#555")


def spread(n, limit):
    """Indices spread evenly over `range(n)`, both ends included: int `[min(n, limit)]`."""
    count = min(n, limit)
    return np.arange(count) * (n - 1) // max(count - 1, 1)


def visible(images):
    """Inputs `[n, ...]` as pictures to look at, uint8 `[n, H, W, 3]`.

    Pictures, uint8 `[n, H, W, 1 or 3]`, stay what they are, grey ones in three channels.  Other
    inputs are drawn on one scale for all: few numbers as bars, many as a line, series `[T, C]` of
    up to eight channels as a line each, tables as shades of grey.
    """
    images = np.asarray(images)
    if images.dtype == np.uint8:
        return np.repeat(images, 3, -1) if images.shape[-1] == 1 else images
    finite = images[np.isfinite(images)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    low, high = min(low, 0.0), max(high, 0.0)
    scaled = np.nan_to_num((images - low) / ((high - low) or 1.0), nan=0.0, posinf=1, neginf=0)
    zero = -low / ((high - low) or 1.0)
    return np.stack([_drawn(values, zero) for values in np.clip(scaled, 0, 1)])


def _drawn(values, zero):
    """One input, scaled to [0, 1] with 0 at `zero`, as a picture `[PLOT, PLOT, 3]`."""
    if values.ndim > 2 or (values.ndim == 2 and values.shape[1] > 8):
        table = values if values.ndim == 2 else values.reshape(values.shape[0], -1)
        rows, columns = (np.arange(PLOT) * size // PLOT for size in table.shape)
        return np.repeat(np.uint8(255 * table[rows][:, columns])[..., None], 3, -1)
    sheet = Image.new("RGB", (PLOT, PLOT), "#f3f2ee")
    pen, room = ImageDraw.Draw(sheet), PLOT - 8

    def height(value):
        return 4 + room * (1 - value)

    pen.line((2, height(zero), PLOT - 3, height(zero)), fill="#b9b8b2")
    if values.ndim == 1 and len(values) <= 32:
        wide = room / len(values)
        for place, value in enumerate(values):
            ends = sorted((height(value), height(zero)))
            left = 4 + place * wide
            box = (left + 0.1 * wide, ends[0], left + max(0.9 * wide, 1), ends[1])
            pen.rectangle(box, fill=INKS[0])
    else:
        for column, ink in zip(np.atleast_2d(values.T), INKS, strict=False):
            along = np.linspace(4, PLOT - 5, len(column))
            pen.line([*zip(along, map(height, column), strict=True)], fill=ink, width=1)
    return np.asarray(sheet)


def enlarge(image, scale):
    """One picture uint8 `[H, W, 3]` as a Pillow picture, each side times `scale` > 0."""
    picture = Image.fromarray(np.asarray(image))
    if scale == 1:
        return picture
    size = [max(1, round(side * scale)) for side in picture.size]
    return picture.resize(size, Image.Resampling.LANCZOS)


def readable_scale(images, wanted, largest=256):
    """Whole factor that makes the longest side about `wanted`; shrinks what exceeds `largest`."""
    side = max(images.shape[1:3])
    return max(1, round(wanted / side)) if side <= largest else largest / side


def png(picture):
    """Bytes of a PNG file from a Pillow picture or uint8 `[H, W, 3]`, or grey `[H, W, 1]`."""
    return encode(picture, "PNG", compress_level=6)


def read_png(data, shape):
    """Pixels uint8 `shape` = `(H, W, 1 or 3)` of the bytes of a PNG; ValueError for other bytes.

    The header is held against `shape` before anything is decoded: a few hundred bytes can declare
    gigabytes of pixels.
    """
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR" or len(data) < 33:
        raise ValueError("it is no PNG file")
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    if (height, width) != tuple(shape[:2]):
        raise ValueError(f"it is {width} x {height} pixels, expected {shape[1]} x {shape[0]}")
    if (depth, colour) != (8, 0 if shape[2] == 1 else 2):
        raise ValueError(f"it is not {'grey' if shape[2] == 1 else 'RGB'} of 8 bits")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # its size is known
            with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
                return np.array(picture).reshape(shape)
    except Exception as error:  # Pillow raises almost anything over forged bytes
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error


def grid(images, columns=10, limit=100, scale=None):
    """Contact sheet on white of at most `limit` pictures, drawn once and in order, row by row.

    A regular choice would show the same few chains over and over, since samples come K at a time.

    scale: factor on each side; by default small pictures grow to about 96 pixels.
    Returns a Pillow RGB picture; gutters are one sixteenth of a tile, at least 4 pixels.
    """
    scale = readable_scale(images, 96) if scale is None else scale
    count = min(len(images), limit)
    chosen = np.sort(np.random.default_rng(0).choice(len(images), count, replace=False))
    tiles = [enlarge(images[i], scale) for i in chosen]
    width, height = tiles[0].size
    gutter = max(4, max(width, height) // 16)
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    size = gutter + columns * (width + gutter), gutter + rows * (height + gutter)
    sheet = Image.new("RGB", size, "white")
    for i, tile in enumerate(tiles):
        row, column = divmod(i, columns)
        sheet.paste(tile, (gutter + column * (width + gutter), gutter + row * (height + gutter)))
    return sheet


def animation(images, limit=500, duration=120, scale=None):
    """Bytes of an endless animated WebP of at most `limit` pictures, evenly spread, in order.

    duration: milliseconds a picture stays.
    scale: factor on each side; by default small pictures grow to about 128 pixels.
    """
    scale = readable_scale(images, 128) if scale is None else scale
    first, *rest = [enlarge(images[i], scale) for i in spread(len(images), limit)]
    # kmax=1: every frame stands alone. Neighbours differ everywhere, so deltas only cost time.
    options = dict(save_all=True, append_images=rest, duration=duration, loop=0, kmin=0, kmax=1)
    return encode(first, "WEBP", quality=80, method=0, **options)


def encode(picture, kind, **options):
    """Bytes of a file of Pillow's `kind`, from a Pillow picture or uint8 `[H, W, 3]`."""
    if not isinstance(picture, Image.Image):
        picture = np.asarray(picture)
        picture = Image.fromarray(picture[..., 0] if picture.shape[2:] == (1,) else picture)
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()
