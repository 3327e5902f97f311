"""What all tests share."""

import jax
import pytest

SLOW = ("test_experiments", "test_surveys", "test_train_mini", "test_cli")  # files of minutes


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
