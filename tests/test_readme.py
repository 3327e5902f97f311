"""What the README shows runs, and what it names exists."""

import importlib
import pathlib
import re

import pytest

from inverse_set import errors
from inverse_set.types import Status

README = (pathlib.Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize(
    "block",
    [pytest.param(BLOCKS[0], marks=pytest.mark.slow), *BLOCKS[1:]],  # the first is of mini
    ids=["model", "own networks"],
)
def test_python_examples_find_what_they_ask_for(block):
    names = {}
    exec(compile(block, "README.md", "exec"), names)
    (asked,) = re.findall(r"num_samples=(\d+)", block)
    found = names["found"]
    samples = getattr(found, "samples", found)
    assert found.status == Status.OK and len(samples.images) == int(asked)


def test_exit_codes_are_those_of_the_command():
    table = README.split("| exit code |")[1].split("\n\n")[0]
    told = re.findall(r"^\| (\d+) \| .+ \|$", table, re.MULTILINE)
    assert [int(code) for code in told] == [0, *errors.CODES]


def test_the_table_names_functions_that_exist():
    rows = re.findall(r"^\| .+ \| (.+) \|$", README.split("## Equation")[1], re.MULTILINE)
    names = {name for row in rows for name in re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)`", row)}
    assert len(names) > 12
    for name in sorted(names):
        module, _, function = name.rpartition(".")
        assert callable(getattr(importlib.import_module(f"inverse_set.{module}"), function)), name


def test_pictures_shown_are_there():
    shown = re.findall(r"!\[[^]]*\]\(([^)]+)\)", README)
    assert shown
    for path in shown:
        assert (pathlib.Path(__file__).parent.parent / path).is_file(), path
