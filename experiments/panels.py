"""Figures of the experiments: rows of pictures with a few lines of text beside each."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from inverse_set import pictures

SHOWN = 10  # pictures a row


def choice(chain):
    """Numbers of at most ten samples, drawn at random, as evenly from the chains `[n]` as can be.

    So a row shows as many themes as there are: samples of one chain are variations of its seed.
    """
    order = np.random.default_rng(0).permutation(len(chain))
    turn = np.zeros(len(chain), int)  # how many of its chain a sample comes after
    for one in np.unique(chain):
        mine = order[chain[order] == one]
        turn[mine] = np.arange(len(mine))
    return np.sort(order[np.argsort(turn[order], kind="stable")][:SHOWN])


def panel(strips, tile=128, size=24):
    """A figure, a Pillow picture, one row a strip: lines of text, then its first ten pictures.

    strips: (lines, images `[n, H, W, 3]`).  tile: pixels a picture.  size: of the letters.
    """
    strips, gap, pitch = list(strips), 8, tile + 8
    font, line_height = ImageFont.load_default(size=size), round(1.2 * size)
    left = 3 * gap + max(round(font.getlength(line)) for lines, _ in strips for line in lines)
    heights = [max(tile, line_height * len(lines)) + 2 * gap for lines, _ in strips]
    sheet = Image.new("RGB", (left + SHOWN * pitch, sum(heights)), "white")
    draw, top = ImageDraw.Draw(sheet), 0
    for (lines, images), height in zip(strips, heights, strict=True):
        middle, text = top + height // 2, "\n".join(lines)
        draw.text((gap, middle), text, "black", font, "lm", spacing=line_height - size)
        for column, image in enumerate(images[:SHOWN]):
            picture = pictures.enlarge(image, tile / max(image.shape[:2]))
            sheet.paste(picture, (left + column * pitch, middle - tile // 2))
        top += height
    return sheet
