"""What all tests share.  Commands run in processes of their own: they keep what they compile in one
folder of this run, so that each program is compiled once for all of them."""

import os
import tempfile

import pytest

CACHE = tempfile.TemporaryDirectory(prefix="compiled-", ignore_cleanup_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"


def pytest_addoption(parser):
    parser.addoption("--data", default=None, help="folder of Tiny ImageNet, for the training test")


@pytest.fixture
def x64():
    """Double precision, and no silent broadcasting between ranks."""
    import jax  # here, since it reads the environment when it is first imported

    with jax.enable_x64(True), jax.numpy_rank_promotion("raise"):
        yield
