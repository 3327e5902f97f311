"""What all tests share."""

import importlib.util
import os
import tempfile

import jax
import pytest

# Files that take minutes, or need torch: `make test-slow`.
SLOW = (
    "test_compiled",
    "test_demo",
    "test_experiments",
    "test_fitting",
    "test_full_size",
    "test_judge",
    "test_paper",
    "test_spectra",
    "test_surveys",
    "test_torch_file",
    "test_train_mini",
)
FIRST = ("test_cli", "test_own", *SLOW)  # two processes, each a file at a time, then end together
if importlib.util.find_spec("torch") is None:
    collect_ignore_glob = [f"*{name}.py" for name in SLOW]


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
    """Marks what is slow, and puts the long files first."""
    for item in items:
        if item.path.stem in SLOW:
            item.add_marker("slow")
    items.sort(key=lambda item: item.path.stem not in FIRST)


def pytest_addoption(parser):
    parser.addoption("--data", default=None, help="folder of Tiny ImageNet, for the training test")


@pytest.fixture
def x64():
    """Double precision, and no silent broadcasting between ranks."""
    with jax.enable_x64(True), jax.numpy_rank_promotion("raise"):
        yield
