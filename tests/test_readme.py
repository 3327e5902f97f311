"""What the README and the guides show runs, and what they name exists."""

import importlib
import pathlib
import re

import pytest

from inverse_set import cli, errors
from inverse_set.types import Status

ROOT = pathlib.Path(__file__).parent.parent
GUIDES = ROOT / "docs" / "guides"
PAGES = [ROOT / "README.md", ROOT / "docs" / "architecture.md", *sorted(GUIDES.glob("*.md"))]


def blocks(path):
    """The Python examples of a page."""
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(blocks(PAGES[0])[0], marks=pytest.mark.slow, id="the bundled model"),
        pytest.param(blocks(PAGES[0])[1], id="own network"),
        pytest.param(blocks(GUIDES / "own_model.md")[0], id="algorithms alone"),
    ],
)
def test_python_examples_find_what_they_ask_for(block):
    names = {}
    exec(compile(block, "example.py", "exec"), names)
    (asked,) = re.findall(r"num_samples=(\d+)", block)
    found = names["found"]
    samples = getattr(found, "samples", found)
    assert found.status == Status.OK and len(samples.images) == int(asked)


def test_every_example_is_run():
    assert sum(len(blocks(page)) for page in PAGES) == 3


def test_exit_codes_are_those_of_the_command():
    table = (GUIDES / "command.md").read_text().split("| exit code |")[1].split("\n\n")[0]
    told = re.findall(r"^\| (\d+) \| .+ \|$", table, re.MULTILINE)
    assert [int(code) for code in told] == [0, *errors.CODES]


def test_the_table_names_functions_that_exist():
    table = (ROOT / "docs" / "architecture.md").read_text().split("## Equation")[1]
    rows = re.findall(r"^\| .+ \| (.+) \|$", table, re.MULTILINE)
    names = {name for row in rows for name in re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)`", row)}
    assert len(names) > 12
    for name in sorted(names):
        module, _, function = name.rpartition(".")
        assert callable(getattr(importlib.import_module(f"inverse_set.{module}"), function)), name


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_what_a_page_points_to_is_there(page):
    for path in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_commands_that_are_shown_have_these_flags(page):
    for line in re.findall(r"^inverse-set ([a-z]+ .*)$", page.read_text(), re.MULTILINE):
        for command in line.split("#")[0].split("&&"):
            words = [w for w in command.split() if w not in ("inverse-set",)]
            values, _ = cli._parse(words[0], [w for w in words[1:] if w.startswith("--")])
            assert values is not None


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
