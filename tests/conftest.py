"""What all tests share."""

import os
import tempfile

import jax
import pytest

SLOW = ("test_experiments", "test_surveys", "test_train_mini", "test_cli")  # files of minutes


def pytest_configure(config):
    """Programs that tests start take from a folder of this run what another has compiled.

    The tests' own processes do not: after a thousand tests writing to it ended one of them.
    """
    jax.config.update("jax_compilation_cache_dir", None)
    if "PYTEST_XDIST_WORKER" not in os.environ:
        folder = tempfile.TemporaryDirectory()
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
        config.add_cleanup(folder.cleanup)


def pytest_collection_modifyitems(items):
    """The slow files first: two processes, each a file at a time, end together."""
    items.sort(key=lambda item: item.path.stem not in SLOW)


def pytest_addoption(parser):
    parser.addoption("--data", default=None, help="folder of Tiny ImageNet, for the training test")


@pytest.fixture
def x64():
    """Double precision, and no silent broadcasting between ranks."""
    with jax.enable_x64(True), jax.numpy_rank_promotion("raise"):
        yield
