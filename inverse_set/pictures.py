"""Pictures of a sample set: contact sheet and animation.

Arrays in; Pillow pictures or bytes out.  No file is read or written here.  Throughout, `images` is
uint8 `[n, H, W, 3]` (RGB, 0 to 255).
"""

import io

import numpy as np
from PIL import Image


def spread(n, limit):
    """Indices spread evenly over `range(n)`, both ends included: int `[min(n, limit)]`."""
    count = min(n, limit)
    return np.arange(count) * (n - 1) // max(count - 1, 1)


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
    """Bytes of a PNG file from a Pillow picture or uint8 `[H, W, 3]`."""
    return encode(picture, "PNG", compress_level=6)


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
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(np.asarray(picture))
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()
