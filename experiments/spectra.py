"""What pictures have in common that is not in the world: lattices, by their power spectrum."""

import numpy as np

LUMINANCE = np.array([0.299, 0.587, 0.114])
# Cycles a picture, down and across, of the lattices that strided layers leave at 64 pixels.
FOUR = ((16, 16), (16, -16))  # diagonals of 4 pixels
EIGHT = ((8, 8), (8, -8))
TWO = ((32, 32),)
NEAR, FAR = 2, 4  # cycles between a frequency and its neighbours, along either axis


def power(images):
    """Mean power spectrum `[S, S]` of the luminance of 8-bit pictures `[N, S, S, 3]`.

    Under a Hann window, each picture's mean taken off before.
    """
    light = images @ (LUMINANCE / 255)
    window = np.hanning(light.shape[1] + 2)[1:-1]
    light = (light - light.mean((1, 2), keepdims=True)) * window[:, None] * window
    return (np.abs(np.fft.fft2(light)) ** 2).mean(0)


def lattice(spectrum, frequencies):
    """Power at `frequencies` over the median of what surrounds them: 1 where there is no lattice.

    spectrum: of `power`.  frequencies: pairs of cycles a picture; the ratios' mean is returned.
    """
    side = len(spectrum)
    steps = [(a, b) for a in range(-FAR, FAR + 1) for b in range(-FAR, FAR + 1)]
    steps = np.array([step for step in steps if max(map(abs, step)) >= NEAR])
    ratios = []
    for place in np.asarray(frequencies):
        around = spectrum[tuple((place + steps).T % side)]
        ratios.append(spectrum[tuple(place % side)] / np.median(around))
    return float(np.mean(ratios))


def contrast(images):
    """Mean standard deviation of a picture's channels, of 8-bit pictures, white being 1."""
    return float((images / 255).std((1, 2)).mean())
