"""What all tests share."""

import jax
import pytest


def pytest_addoption(parser):
    parser.addoption("--data", default=None, help="folder of Tiny ImageNet, for the training test")


@pytest.fixture
def x64():
    """Double precision, and no silent broadcasting between ranks."""
    with jax.enable_x64(True), jax.numpy_rank_promotion("raise"):
        yield
