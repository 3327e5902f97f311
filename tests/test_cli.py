"""The command as a person types it: what it writes, what it says, how it exits.

Of a model of one's own, which compiles in seconds; test_demo.py runs the bundled one.
"""

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image
from rich.table import Table

from inverse_set import cli, errors, results
from inverse_set.commands import lists, memory, progress
from inverse_set.models import zoo
from tests import tiny

UNIT = "fc8/monarch:p99:p99.9"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small run: 24 samples from 6 seeds."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    code = cli.run(sampling(folder))
    assert code == 0
    return folder


def sampling(folder, *more):
    flags = [f"--constraint={UNIT}", "--num_samples=24", "--num_seeds=6", f"--out={folder}"]
    return ["sample", f"--model={tiny.PLACE}", *flags, *more]


def verified(folder):
    return cli.run(["verify", str(folder), f"--model={tiny.PLACE}"])


PHASES = ("start:", "compile:", "seeds:", "samples:", "certificate:")  # of the lines of progress


def refused(capsys, arguments, code, *words):
    """The command fails with one line of what and one of what to do, and no traceback."""
    assert cli.run(arguments) == code
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if not line.startswith(PHASES)]
    assert len(lines) == 2, said
    assert lines[0].startswith("inverse-set: ") and lines[1].startswith("  ")
    assert "Traceback" not in said
    for word in words:
        assert word in said
    return said


def test_a_run_is_whole(finished):
    names = {path.name for path in finished.iterdir()}
    assert names == {*results.FILES, "run.json", "images"}
    assert len(list((finished / "images").iterdir())) == 24
    samples, record = results.load(finished)
    side = tiny.SIDE
    assert samples.images.shape == (24, side, side, 3) and samples.images.dtype == np.uint8
    assert record["status"] == "ok" and record["samples"] == 24
    assert record["weights"] == tiny.model().digests
    assert len(np.unique(samples.images.reshape(24, -1), axis=0)) == 24


def test_pictures_lie_inside_by_the_stored_activations(finished):
    samples, record = results.load(finished)
    (constraint,) = record["constraints"]
    low, high = constraint["low"], constraint["high"]
    assert ((samples.activations >= low) & (samples.activations <= high)).all()
    apart = np.abs(samples.activations - samples.raw_activations).max()
    assert 0 < apart < 0.5 * (high - low)


def test_verify_counts_every_picture(finished, capsys):
    assert verified(finished) == 0
    assert "24 of 24 pictures lie inside" in capsys.readouterr().out


def test_verify_finds_a_changed_picture(finished, capsys):
    path = finished / "images" / "00003.png"
    before = path.read_bytes()
    with Image.open(path) as picture:
        size = picture.size
    Image.new("RGB", size, "gray").save(path)
    try:
        assert verified(finished) == 3
        said = capsys.readouterr()
        assert "23 of 24 pictures lie inside" in said.out
        assert "images/00003.png shows another picture" in said.err
        assert "images/00003.png lies outside" in said.err
    finally:
        path.write_bytes(before)


def test_verify_wants_every_picture_and_a_finished_run(finished, tmp_path, capsys):
    path = finished / "images" / "00005.png"
    before = path.read_bytes()
    for damage in (path.unlink, lambda: path.write_bytes(before[: len(before) // 2])):
        damage()
        assert verified(finished) == 3
        assert "00005.png" in capsys.readouterr().err
    path.write_bytes(before)
    refused(capsys, ["verify", str(tmp_path)], 2, "run.json")
    refused(capsys, ["verify"], 2)


def test_the_same_seed_gives_the_same_bytes(finished, tmp_path):
    assert cli.run(sampling(tmp_path / "again")) == 0
    assert cli.run(sampling(tmp_path / "other", "--seed=1")) == 0
    first = (finished / "samples.npz").read_bytes()
    assert (tmp_path / "again" / "samples.npz").read_bytes() == first
    assert (tmp_path / "other" / "samples.npz").read_bytes() != first


def test_an_existing_run_is_not_touched(finished, capsys):
    before = (finished / "run.json").read_bytes()
    refused(capsys, sampling(finished), 2, "--overwrite")
    assert (finished / "run.json").read_bytes() == before


def test_an_intersection_across_layers(tmp_path, capsys):
    second = "--constraint=conv5/7@3,4:p50:p99.9"
    assert cli.run(sampling(tmp_path / "both", second, "--num_samples=12")) == 0
    samples, record = results.load(tmp_path / "both")
    assert samples.activations.shape == (12, 2)
    assert record["constraints"][1]["name"] == "conv5/7@3,4"


@pytest.mark.parametrize("more", [["--method=joint"], ["--rule=paper", "--step=0.01"]])
def test_other_ways_to_sample(tmp_path, more):
    folder = tmp_path / "run"
    flags = ["--num_samples=6", "--num_seeds=3", "--seed_steps=300"]
    assert cli.run(sampling(folder, *more, *flags)) == 0
    samples, record = results.load(folder)
    name, _, value = more[0].removeprefix("--").partition("=")
    assert len(samples.images) == 6 and record["settings"][name] == value
    low, high = (record["constraints"][0][end] for end in ("low", "high"))
    assert (samples.activations >= low).all()
    assert (samples.activations <= high).all() or value == "paper"
    assert verified(folder) == 0


def test_the_refining_walk_at_an_intersection(tmp_path):
    """By steps that leave it: the record says how, and verify agrees."""
    folder = tmp_path / "both"
    second = "--constraint=conv5/7@3,4:p50:p99.9"
    assert cli.run(sampling(folder, second, "--walk=refine")) == 0
    _, record = results.load(folder)
    assert record["settings"]["walk"] == "refine" and record["settings"]["encodings"] == 2
    assert verified(folder) == 0


def test_the_refining_walk_is_refused_where_there_is_none(tmp_path, capsys):
    for more, word in (("--rule=paper", "under the paper rule"), ("--method=joint", "joint")):
        refused(capsys, sampling(tmp_path / "x", "--walk=refine", more), 2, word)


def test_an_unreachable_interval(tmp_path, capsys):
    flags = sampling(tmp_path / "x", "--constraint=fc8/monarch:900:901", "--seed_steps=20")
    said = refused(capsys, [word for word in flags if UNIT not in word], 3, "reached", "900")
    assert "nearest" in said
    samples, record = results.load(tmp_path / "x")
    assert len(samples.images) == 0 and record["status"] == "infeasible"


BAD = [
    (["--model=vgg"], "unknown model 'vgg'"),
    (["--constraint=fc9/0:1:2"], "no layer 'fc9'"),
    (["--constraint=fc8/monarc:1:2"], "did you mean monarch"),
    (["--constraint=fc8/4000:1:2"], "no unit 4000"),
    (["--constraint=fc8/monarch:5:5"], "not below"),
    (["--constraint=fc8/monarch:p5:p101"], "out of range"),
    (["--constraint=fc8/monarch"], "not a constraint"),
    (["--num_samples=5"], "fewer than the 6 seeds"),
    (["--num_samples=many"], "num_samples"),
    (["--num_seeds=0"], "num_seeds"),
    (["--rule=both"], "rule"),
    (["--ruel=paper"], "--rule"),
    (["stray"], "unexpected argument"),
]


@pytest.mark.parametrize(("more", "word"), BAD, ids=[word for _, word in BAD])
def test_bad_input(tmp_path, capsys, more, word):
    refused(capsys, sampling(tmp_path / "x", *more), 2, word)
    assert not (tmp_path / "x").exists()


def test_nothing_asked(tmp_path, capsys):
    refused(capsys, ["sample", f"--out={tmp_path / 'x'}"], 2, "--constraint")
    refused(capsys, ["sample", f"--constraint={UNIT}"], 2, "--out")
    refused(capsys, ["smaple"], 2, "unknown command", "sample")
    assert cli.run([]) == 2
    assert "usage" in capsys.readouterr().out
    assert cli.run(["--help"]) == 0
    assert cli.run(["sample", "--help"]) == 0
    assert "--constraint" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_weights_that_are_not_there(tmp_path, capsys, monkeypatch, damage):
    if damage == "truncated":
        for path in zoo.files("mini"):
            (tmp_path / path.name).write_bytes(path.read_bytes()[:-1000])
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    zoo.load.cache_clear()
    try:
        bundled = sampling(tmp_path / "x", "--model=mini")
        refused(capsys, bundled, 4, "mini_classifier.safetensors")
    finally:
        monkeypatch.undo()
        zoo.load.cache_clear()


def test_no_space_left(tmp_path, capsys, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    refused(capsys, sampling(tmp_path / "x"), 2, "space")
    assert not (tmp_path / "x" / "run.json").exists()


def test_units_lists_names_and_percentiles(capsys):
    model = f"--model={tiny.PLACE}"
    assert cli.run(["units", model]) == 0
    said = capsys.readouterr().out
    assert "monarch" in said and "p99.9" in said
    assert cli.run(["units", model, "--layer=conv5"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + 8
    refused(capsys, ["units", model, "--layer=fc9"], 2, "fc9")


def test_models_says_what_is_here(capsys):
    assert cli.run(["models"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "mini" in line)
    assert line.rstrip().endswith("yes")


@pytest.mark.parametrize("phase", ["seeds", "samples"])
def test_a_stopped_run_says_interrupted_and_keeps_what_it_has(phase, tmp_path):
    """SIGTERM in a phase, from outside, as a cluster would; JAX as strict as it can be."""
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "inverse_set", *sampling(folder, "--num_samples=200000")]
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True}
    strict = {
        "JAX_ENABLE_X64": "1",
        "JAX_NUMPY_RANK_PROMOTION": "raise",
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    }
    with subprocess.Popen(command, **pipes, env=os.environ | strict) as process:
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith(f"{phase}:"):
                process.send_signal(signal.SIGTERM)
                break
        said += process.stderr.readlines()
        assert process.wait(60) == 75, "".join(said)
    samples, record = results.load(folder)
    assert record["status"] == "interrupted"
    assert len(samples.images) < 200000 and (phase == "seeds" or len(samples.images) > 6)
    assert not len(samples.images) or verified(folder) == 0


def test_a_run_stopped_before_anything_was_found_says_so(tmp_path):
    command = [sys.executable, "-m", "inverse_set", *sampling(tmp_path / "run")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not process.stderr.readline().startswith("compile:"):
            pass
        process.send_signal(signal.SIGTERM)
        what, remedy = process.stderr.readlines()[-2:]
        assert process.wait(60) == 75
    assert what.startswith("inverse-set: interrupted") and "same command again" in remedy


def test_a_run_killed_outright_leaves_nothing_that_looks_whole(tmp_path, capsys):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "inverse_set", *sampling(folder)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not folder.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    refused(capsys, ["verify", str(folder)], 2, "run.json")


def test_run_json_is_plain_json(finished):
    def refuse(constant):
        raise ValueError(constant)

    text = (finished / "run.json").read_text()
    record = json.loads(text, parse_constant=refuse)
    assert record["command"][0] == "inverse-set"
    machine = record["machine"]
    assert machine["platform"] == jax.default_backend() and machine["cores"] >= 1
    assert machine["batch"] is None and machine["jax"]["enable_x64"] is False
    assert "XLA_FLAGS" in machine and machine["device"] == jax.devices()[0].device_kind
    assert set(record["versions"]) >= {"jax", "python", "numpy"}


def test_a_path_may_begin_at_home(tmp_path, capsys, monkeypatch):
    """No shell replaces the ~ of `--out=~/x`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    refused(capsys, sampling("~/mine"), 2, f"{tmp_path}/mine exists and is not empty")
    refused(capsys, ["verify", "~/mine"], 2, f"{tmp_path}/mine is not a finished run")
    refused(capsys, ["convert", "~/no.caffemodel", "--network=caffenet"], 4, f"{tmp_path}/no.c")
    values, rest = cli._parse("convert", ["~/a", "--images=~/b", "--mean=~/c"])
    assert [*rest, values.images, values.mean] == [f"{tmp_path}/{name}" for name in "abc"]
    assert not os.path.exists("~")


def test_nothing_steers_the_terminal(tmp_path, capsys):
    """A name that would clear the screen, wherever it is said."""
    said = refused(capsys, ["verify", str(tmp_path / "a\x1b[2J\x07b")], 2, "\\x1b[2J\\x07b")
    assert "\x1b" not in said and "\x07" not in said
    assert cli.run(["verify", str(tmp_path / "\x1b[2J"), "--debug"]) == 2
    assert "\x1b" not in capsys.readouterr().err
    table = Table(title=lists.cell("[red]\x1b[2J"))
    table.add_column(lists.cell("\x9b31m"))
    lists.show(table)
    with progress.reporting() as report:
        report("seeds", 1, 2, "\x1b[2J")
    said = capsys.readouterr()
    assert "[red]\\x1b[2J" in "".join(said.out.split()) and "\\x1b[2J" in said.err
    assert not {"\x1b", "\x9b"} & set(said.out + said.err)


def test_the_version(capsys):
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == importlib.metadata.version("inverse-set")


def test_steps_that_do_not_fit_into_memory(capsys, monkeypatch, tmp_path):
    """A hundred seeds at eight megabytes each, where a hundred megabytes are free."""
    monkeypatch.setattr(memory, "free", lambda: 100 * 2**20)
    many = sampling(tmp_path / "x", "--model=mini", "--num_samples=200", "--num_seeds=100")
    said = refused(capsys, [*many, "--batch=100"], 2, "100 codes need about", "GiB are free")
    largest = int(said.partition("--batch=")[2].split()[0])
    assert 3 < largest < 12
    assert not (tmp_path / "x").exists()
    place = []  # without --batch a note says it, and the run goes on
    monkeypatch.setattr(results, "claim", lambda *asked: place.append(asked) or 1 / 0)
    assert cli.run(many) == errors.INTERNAL and place
    assert f"taken {largest} at a time" in capsys.readouterr().err
    monkeypatch.setattr(memory, "free", lambda: 44 * 2**20)
    refused(capsys, many, 2, "100 codes need about", "free some memory")
    monkeypatch.setattr(memory, "free", lambda: 20 * 2**30)
    counts = ("--num_samples=1000000", "--num_seeds=1000000")
    endless = sampling(tmp_path / "x", "--model=mini", *counts)
    said = refused(capsys, endless, 2, "need about", "20.0 GiB are free", "--num_seeds")
    needed = 5 * 10**6 * 3 * 64**2 * 4 / 2**30
    assert f"{needed:,.1f} GiB" in said


def test_what_is_free_is_the_least_of_what_the_system_says(monkeypatch, tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:  2000 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    monkeypatch.setattr(memory.jax, "devices", lambda: [SimpleNamespace(platform="cpu")])
    assert memory.free() == 2000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert memory.free() == 2000 * 1024
    (tmp_path / "memory.max").write_text("501000\n")
    assert memory.free() == 500000
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "none")
    (tmp_path / "memory.max").unlink()
    assert memory.free() is None
    card = SimpleNamespace(platform="gpu", memory_stats=lambda: {"bytes_limit": 9})
    monkeypatch.setattr(memory.jax, "devices", lambda: [card])
    assert memory.free() == 9
    card.memory_stats = lambda: None
    assert memory.free() is None
