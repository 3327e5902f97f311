"""Pictures of a sample set: contact sheet and animation.

Arrays in; Pillow pictures or bytes out.  No file is read or written here.  Throughout, `images` is
uint8 `[n, H, W, 3]` (RGB, 0 to 255).
"""

import io
import struct
import warnings

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


def read_png(data, shape):
    """Pixels uint8 `shape` = `(H, W, 3)` of the bytes of a PNG file; ValueError for other bytes.

    The header is held against `shape` before anything is decoded: a few hundred bytes can declare
    gigabytes of pixels.
    """
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR" or len(data) < 33:
        raise ValueError("it is no PNG file")
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    if (height, width, 3) != tuple(shape):
        raise ValueError(f"it is {width} x {height} pixels, expected {shape[1]} x {shape[0]}")
    if (depth, colour) != (8, 2):
        raise ValueError("it is not RGB of 8 bits")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # its size is known
            with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
                return np.array(picture)
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
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(np.asarray(picture))
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()
