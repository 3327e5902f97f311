"""The architecture: imports point down, and importing does nothing."""

import ast
import pathlib
import subprocess
import sys
import types

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "inverse_set"
# A module may import modules of the package that stand on an earlier line.
LEVELS = (
    ("types", "errors"),
    (
        "convert.home",
        "diversity",
        "constraints",
        "observe",
        "metrics",
        "chains",
        "pictures",
        "disk",
    ),
    ("gallery", "store.lock", "store.samples", "store.record"),
    ("lagrangian", "store.folder"),
    ("results",),
    ("examine",),
    ("seeds",),
    ("refine",),
    ("sampler",),
    ("settings",),
    ("natural_units",),
    ("kernels", "run"),
    ("baselines.trace",),
    ("baselines.ppgn", "baselines.dgn_am", "baselines.pixel_am", "baselines.rejection"),
    ("baselines.multifaceted",),
    ("models.layers", "models.pixels", "models.units"),
    ("models.pooling",),
    ("models.classifier",),
    ("models.base", "models.generator", "models.certificate"),
    ("models.mini", "models.caffenet", "models.parts", "models.weights"),
    ("models.bind", "models.own", "models.zoo"),
    ("models.adapt", "models.cost", "models.measure"),
    ("report",),
    ("certified",),
    ("convert.wire", "convert.files", "convert.child", "convert.released", "convert.download"),
    ("convert.signatures",),
    ("convert.unpack",),
    ("convert.caffemodel", "convert.isolated", "convert.arrays", "convert.weight_file"),
    ("convert.matconvnet", "convert.torch_file", "convert.arrange", "convert.natural"),
    ("convert.converting", "commands.signals"),
    ("", "streams", "commands.progress", "commands.lists"),
    ("commands.dry_run", "commands.memory", "commands.convert", "commands.fetch", "commands.flags"),
    ("commands.sample", "commands.verify"),
    ("cli",),
    ("__main__",),
)
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}
PACKAGES = ("models", "commands", "convert", "baselines", "store")
# Touch the disk, know no algorithm.
SHELL = ("pictures", "gallery", "results", "examine", "disk", "convert.home")
ALGORITHMS = [
    name
    for names in LEVELS[: LEVELS.index(("kernels", "run"))]
    for name in names
    if name not in SHELL and not name.startswith("store.")
]


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts).removesuffix("__init__").removesuffix("."), path


def imported(path):
    """Every dotted name a file imports, at any depth."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inner(name):
    """The package's own module among `LEVEL` that a dotted name refers to, or None."""
    head, _, rest = name.partition(".")
    if head != "inverse_set":
        return None
    while rest and rest not in LEVEL:
        rest = rest.rpartition(".")[0]
    return rest or None


NAMES = [name for name, _ in modules() if name not in PACKAGES]


def test_every_module_has_its_place():
    assert sorted(NAMES) == sorted(LEVEL)


@pytest.mark.parametrize("name", NAMES)
def test_arrows_point_down(name):
    path = dict(modules())[name]
    for found in imported(path):
        target = inner(found)
        if target is not None and target != name:
            assert LEVEL[target] < LEVEL[name], f"{name} imports {target}"


@pytest.mark.parametrize("name", ALGORITHMS)
def test_algorithms_know_no_network_file_or_flag(name):
    roots = {found.partition(".")[0] for found in imported(dict(modules())[name])}
    assert not roots & {"flax", "absl", "PIL", "pathlib", "os", "rich", "safetensors"}


def test_flax_lives_in_models_and_nothing_imports_experiments():
    for name, path in modules():
        roots = {found.partition(".")[0] for found in imported(path)}
        assert "experiments" not in roots and "tests" not in roots, name
        assert name.startswith("models") or "flax" not in roots, name


def test_importing_touches_no_device_and_no_weights():
    code = (
        "import sys; opened = []\n"
        "sys.addaudithook(lambda event, a: event == 'open' and opened.append(str(a[0])))\n"
        "import inverse_set, inverse_set.cli\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge._backends, 'a device was touched'\n"
        "assert any(f.endswith(('.py', '.pyc')) for f in opened), 'nothing was seen'\n"
        "read = [f for f in opened if f.endswith(('.safetensors', '.json', '.txt'))]\n"
        "assert not read, read\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_public_names_are_listed_and_say_what_they_are():
    """They are imported when first used; each is found under its name, and documented by itself."""
    import inverse_set

    assert sorted(inverse_set._HOMES) == sorted(inverse_set.__all__)
    bound = {
        name
        for name, value in vars(inverse_set).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert bound <= {*inverse_set.__all__}, bound
    assert {*inverse_set.__all__} <= {*dir(inverse_set)}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        inverse_set.nothing  # noqa: B018
    for name in inverse_set.__all__:
        said = getattr(inverse_set, name).__doc__
        assert said and not said.startswith(f"{name}("), name  # a NamedTuple's own lists its fields
