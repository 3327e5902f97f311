"""What a converted classifier does on natural pictures: a check, percentiles and starting codes."""

import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageOps

from inverse_set.errors import UserError
from inverse_set.models import caffenet, pixels
from inverse_set.models.classifier import Classifier

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
FEWEST = 20
STARTS = 200
QUANTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9)
KEPT = ("conv5", "fc6", "fc7", "fc8")
# Mean over units of each unit's mean and standard deviation on natural pictures, for CaffeNet.
PUBLISHED = {
    "norm1": (30.4, 28.6),
    "norm2": (15.6, 23.8),
    "conv3": (-20.3, 43.3),
    "conv4": (-14.1, 28.4),
    "pool5": (5.0, 11.9),
    "fc6": (-15.18, 15.08),
    "fc7": (-2.69, 3.49),
    "fc8": (0.00, 2.94),
}


def pictures(folder, most=1000):
    """uint8 `[n, 256, 256, 3]`: the folder's pictures, squeezed to a square as Caffe's were.

    At most `most`, evenly spread over the sorted names; what is no picture is skipped.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder", "give --images the folder of natural pictures")
    paths = sorted(path for path in folder.rglob("*") if _is_picture(path))
    paths = [paths[i] for i in np.linspace(0, len(paths) - 1, min(most, len(paths))).astype(int)]
    found = [image for image in map(_picture, paths) if image is not None]
    if len(found) < FEWEST:
        raise UserError(
            f"{folder} holds {len(found)} pictures, at least {FEWEST} are needed",
            f"pictures end in {', '.join(ENDINGS)}",
        )
    return np.stack(found)


def _is_picture(path):
    return path.suffix.lower() in ENDINGS and path.is_file()


def _picture(path):
    side = caffenet.RESOLUTION
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("JPEG", "PNG", "WEBP", "BMP")) as image:
                image = _rgb(ImageOps.exif_transpose(image))
                return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))
    except Exception:  # Pillow raises almost anything over forged bytes
        return None


def _rgb(image):
    """A Pillow picture of any mode as a viewer shows it, what is transparent on white."""
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip at 255
        grey = np.rint(np.asarray(image, float).clip(0, 65535) / 257).astype(np.uint8)
        image = Image.fromarray(grey)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def measure(network, images, batch=10):
    """(statistics, tensors, record) of a `zoo.Network` on pictures `[n, H, W, 3]`, uint8.

    statistics: {layer: (mean over units of the mean, of the standard deviation)}.
    tensors: percentiles of `KEPT` layers, the natural range of codes, and codes to start from.
    """
    module = Classifier(network.plan)
    layers = jax.device_put(network.weights)

    @jax.jit
    def run(layers, images):
        x = pixels.from_pictures(network.pixels, images.astype(jnp.float32) / 255)
        outputs = module.apply({"params": layers}, x)
        kept = {name: outputs[name] for name in (*KEPT, "relu6")}
        sums = {name: (outputs[name].sum(0), (outputs[name] ** 2).sum(0)) for name in PUBLISHED}
        return kept, sums

    kept, sums = [], None
    whole = len(images) // batch * batch  # every batch full: one compilation
    for start in range(0, whole, batch):
        outputs, more = jax.device_get(run(layers, images[start : start + batch]))
        more = jax.tree.map(lambda a: a.astype(np.float64), more)
        sums = more if sums is None else jax.tree.map(np.add, sums, more)
        kept.append(outputs)
    outputs = {name: np.concatenate([part[name] for part in kept]) for name in kept[0]}
    statistics = {}
    for name in PUBLISHED:
        first, second = sums[name]
        mean = first / whole
        deviation = np.sqrt(np.maximum(second / whole - mean**2, 0))
        statistics[name] = (float(mean.mean()), float(deviation.mean()))
    codes = outputs["relu6"]
    tensors = {f"natural/{name}": np.percentile(outputs[name], QUANTILES, axis=0) for name in KEPT}
    tensors["codes/upper"] = np.percentile(codes, 99.9, axis=0)
    tensors["codes/starts"] = codes[np.random.default_rng(0).permutation(whole)[:STARTS]]
    square = float(2 * codes.var(0, ddof=1).sum())
    record = {"quantiles": list(QUANTILES), "code_square": square, "pictures": whole}
    return statistics, tensors, record
