"""The independent classifier that judges samples."""

import pathlib

import numpy as np
import pytest

from experiments import judge, tiny_imagenet
from inverse_set.models import weights, zoo


@pytest.fixture(scope="module")
def params():
    return judge.load()


@pytest.fixture(scope="module")
def images():
    """A batch, and three pictures of another."""
    shape = judge.BATCH + 3, *[zoo.load("mini").resolution] * 2, 3
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_its_classes_are_the_bundled_models():
    record = weights.read(judge.PATH, "restore it").record
    assert tuple(record["labels"]) == zoo.load("mini").encoder.labels
    assert record["top1"] > 0.75 * zoo.load("mini").record["top1"]


def test_it_finds_features_and_logits(params, images):
    features, logits = judge.look(params, images)
    classes = len(zoo.load("mini").encoder.labels)
    assert features.shape == (len(images), 256) and logits.shape == (len(images), classes)
    assert features.dtype == logits.dtype == np.float32
    assert isinstance(features, np.ndarray) and isinstance(logits, np.ndarray)
    assert (features >= 0).all()  # a mean of what ReLUs gave
    head = features @ params["fc8"]["kernel"] + params["fc8"]["bias"]
    np.testing.assert_allclose(logits, head, rtol=1e-4, atol=1e-4)
    nothing = judge.look(params, images[:0])
    assert [array.shape for array in nothing] == [(0, 256), (0, classes)]


def test_a_picture_looks_the_same_in_any_batch(params, images):
    features, logits = judge.look(params, images)
    compiled = judge._look._cache_size()
    for place in (0, judge.BATCH - 1, judge.BATCH, len(images) - 1):
        alone = judge.look(params, images[place : place + 1])
        np.testing.assert_allclose(alone[0][0], features[place], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(alone[1][0], logits[place], rtol=1e-4, atol=1e-4)
    assert judge._look._cache_size() == compiled


def test_it_is_as_good_as_recorded(params, request):
    folder = request.config.getoption("--data")
    if not folder or not pathlib.Path(folder).exists():
        pytest.skip("no folder of Tiny ImageNet given (--data)")
    model = zoo.load("mini")
    order = [wordnet for wordnet, _ in tiny_imagenet.class_names(folder)]
    classes = [order.index(wordnet) for wordnet in model.record["wordnet"]]
    pictures, labels = tiny_imagenet.load(folder, "valid", classes)
    _, logits = judge.look(params, tiny_imagenet.resized(pictures, model.resolution))
    recorded = weights.read(judge.PATH, "restore it").record["top1"]
    assert abs((logits.argmax(-1) == labels).mean() - recorded) < 0.01
