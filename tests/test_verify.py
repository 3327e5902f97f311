"""`inverse-set verify`: each way to forge a finished run, and the line that names it."""

import hashlib
import json
import os
import shutil
import socket
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inverse_set import cli, examine, results
from inverse_set.commands import verify
from inverse_set.models import bind, units, zoo
from inverse_set.types import Status

COUNT = 4
ASKED = ["fc8/monarch:-50:50", "conv5/12@8,8:-100:100"]


def draw(count):
    """A run that nobody sampled: pictures of noise, and their true activations."""
    model, noise = zoo.load("mini"), np.random.default_rng(0)
    pairs = [units.parse_constraint(model, text) for text in ASKED]
    images = noise.integers(0, 256, (count, model.resolution, model.resolution, 3), np.uint8)
    activations = bind.measure(model, images, [unit for unit, _ in pairs]).astype(np.float32)
    codes, places = np.zeros((count, 3), np.float32), np.arange(count, dtype=np.int32)
    samples = results.SampleSet(images, codes, activations, activations, codes, places, places)
    constraints = [
        constraint._replace(name=units.unit_name(model, unit)) for unit, constraint in pairs
    ]
    return samples, constraints


def record(status=Status.OK, asked_for=COUNT, **changes):
    return {
        "model": "mini",
        "subject": None,
        "untrained": None,
        "asked": ASKED,
        "rule": "two_sided",
        "settings": {"rule": "two_sided"},
        "num_samples": asked_for,
        "status": status.name.lower(),
        "status_sentence": status.sentence,
        "weights": zoo.load("mini").digests,
    } | changes


@pytest.fixture(scope="module")
def drawn():
    return draw(COUNT)


@pytest.fixture(scope="module")
def finished(drawn, tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify") / "run"
    results.save(folder, *drawn, record(), {"model": "mini"}, "asked for")
    return folder


@pytest.fixture
def run(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


def judge(folder, capsys):
    """(exit code, what it printed, the lines that name faults)."""
    code = cli.run(["verify", str(folder)])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    lines = said.err.splitlines()
    if code == 3 and "holds no pictures" not in said.err:
        *lines, last, remedy = lines
        assert f"{len(lines)} fault" in last and remedy.startswith("  ")
    return code, said.out, [line.removeprefix("inverse-set: ") for line in lines]


def change(folder, **values):
    """Writes values into run.json; None removes a key."""
    path = folder / "run.json"
    found = json.loads(path.read_text()) | values
    path.write_text(json.dumps({k: v for k, v in found.items() if v is not REMOVED}))


REMOVED = object()


def seal(folder, name):
    """Makes run.json vouch for a file as it is now."""
    files = json.loads((folder / "run.json").read_text())["files"]
    files[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    change(folder, files=files)


def repaint(path, paint):
    with Image.open(path) as picture:
        pixels = np.array(picture)
    paint(pixels)
    Image.fromarray(pixels).save(path)


def one_pixel(folder):
    def paint(pixels):
        pixels[3, 4, 1] ^= 128

    repaint(folder / "images/00002.png", paint)


def one_pixel_sealed(folder):
    one_pixel(folder)
    seal(folder, "images/00002.png")


def all_pictures_one(folder):
    for i in range(1, COUNT):
        shutil.copy(folder / "images/00000.png", folder / f"images/{i:05d}.png")
        seal(folder, f"images/{i:05d}.png")


def text_chunk(folder):
    path = folder / "images/00001.png"
    data = path.read_bytes()
    body = b"tEXtwho\0me"
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    path.write_bytes(data[:33] + chunk + data[33:])


def other_samples(folder, **changes):
    """samples.npz with other arrays, vouched for."""
    samples, _ = results.load(folder)
    changes = {name: edit(getattr(samples, name).copy()) for name, edit in changes.items()}
    with open(folder / "samples.npz", "wb") as file:
        results.arrays.write(file, samples._replace(**changes))
    seal(folder, "samples.npz")


def darker(images):
    images[1] //= 2
    return images


def off_by_a_little(activations):
    activations[3, 1] += 1e-3
    return activations


def append(name, data):
    def edit(folder):
        with open(folder / name, "ab") as file:
            file.write(data)

    return edit


def swap(name, make):
    def edit(folder):
        (folder / name).unlink()
        make(folder / name)

    return edit


def remove(name, listed=True):
    def edit(folder):
        (folder / name).unlink()
        if not listed:
            files = json.loads((folder / "run.json").read_text())["files"]
            del files[name]
            change(folder, files=files)

    return edit


def says(**values):
    return lambda folder: change(folder, **values)


def constraint(index, **values):
    def edit(folder):
        found = json.loads((folder / "run.json").read_text())["constraints"]
        found[index] |= values
        change(folder, constraints=found)

    return edit


def bind_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        folder = os.open(path.parent, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{folder}/{path.name}")  # sun_path is short
        os.close(folder)


def huge_picture(path):
    """Some hundred bytes that declare 265 MB of pixels."""
    Image.new("RGB", (1, 1)).save(path)
    data = path.read_bytes()
    head = b"IHDR" + struct.pack(">II", 9400, 9400) + data[24:29]
    path.write_bytes(data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:])


NOT_SAVED = "is not as saved: its SHA-256 is not the one in run.json"
OTHER = "shows another picture than samples.npz holds"
LINK, PIPE = "it is a symbolic link, not a regular file", "it is a pipe, not a regular file"
FORGERIES = {  # name: (what is done to a whole run, the lines said of it)
    "pixel": (one_pixel, [f"images/00002.png {OTHER}"]),
    "pixel, sealed": (one_pixel_sealed, [f"images/00002.png {OTHER}"]),
    "all one": (all_pictures_one, [f"images/{i:05d}.png {OTHER}" for i in range(1, COUNT)]),
    "text in a picture": (text_chunk, [f"images/00001.png {NOT_SAVED}"]),
    "npz": (lambda f: other_samples(f, images=darker), [f"images/00001.png {OTHER}"]),
    "npz, unsealed": (
        append("samples.npz", b"x"),
        ["samples.npz is damaged: it is no zip file, or not all of it"],
    ),
    "activation": (
        lambda f: other_samples(f, activations=off_by_a_little),
        ["samples.npz stores other activations than 1 of the pictures have, off by up to 0.001 "],
    ),
    "csv": (append("samples.csv", b"9,,,\n"), [f"samples.csv {NOT_SAVED}"]),
    "grid": (append("grid.png", b"x"), [f"grid.png {NOT_SAVED}"]),
    "animation": (append("animation.webp", b"x"), [f"animation.webp {NOT_SAVED}"]),
    "gallery": (append("gallery.html", b"<script>"), [f"gallery.html {NOT_SAVED}"]),
    "no csv": (remove("samples.csv"), ["samples.csv is missing"]),
    "no csv listed": (remove("samples.csv", False), ["run.json gives no SHA-256 of samples.csv"]),
    "no picture": (remove("images/00001.png"), ["images/00001.png is missing"]),
    "no npz": (remove("samples.npz"), ["samples.npz is missing"]),
    "more pictures": (
        lambda f: shutil.copy(f / "images/00000.png", f / "images/00004.png"),
        ["images/00004.png does not belong to the run"],
    ),
    "a picture by name": (
        lambda f: (f / "images/\x1b[31m.PNG").write_bytes(b""),
        ["images/\\x1b[31m.PNG does not belong to the run"],
    ),
    "half a picture": (
        lambda f: (f / "images/00003.png").write_bytes(
            (f / "images/00003.png").read_bytes()[:2000]
        ),
        ["images/00003.png cannot be read: "],
    ),
    "jpeg": (
        swap("images/00003.png", lambda p: Image.new("RGB", (64, 64)).save(p, "JPEG")),
        ["images/00003.png cannot be read: it is no PNG file"],
    ),
    "grey": (
        swap("images/00003.png", lambda p: Image.new("L", (64, 64)).save(p)),
        ["images/00003.png cannot be read: it is not RGB of 8 bits"],
    ),
    "huge": (
        swap("images/00003.png", huge_picture),
        ["images/00003.png cannot be read: it is 9400 x 9400 pixels, expected 64 x 64"],
    ),
    "status infeasible": (
        says(status="infeasible", status_sentence=Status.INFEASIBLE.sentence),
        ["run.json says infeasible of a run with 4 samples of the 4 asked for"],
    ),
    "status partial": (
        says(status="partial", status_sentence=Status.PARTIAL.sentence),
        ["run.json says partial of a run with 4 samples of the 4 asked for"],
    ),
    "status interrupted": (
        says(status="interrupted", status_sentence=Status.INTERRUPTED.sentence),
        ["run.json says interrupted of a run with 4 samples of the 4 asked for"],
    ),
    "status unknown": (says(status="fine"), ["run.json has the status 'fine', which there is not"]),
    "status a list": (says(status=[1]), ["run.json has the status list, which there is not"]),
    "sentence": (
        says(status_sentence="all is well"),
        ["run.json explains the status ok as 'all is well'"],
    ),
    "samples": (says(samples=5000), ["run.json counts 5000 samples, samples.npz holds 4"]),
    "samples true": (says(samples=True), ["run.json counts True samples, samples.npz holds 4"]),
    "dropped": (says(dropped=-1), ["run.json counts -1 dropped"]),
    "seeds inside": (says(seeds_inside=0.5), ["run.json counts 0.5 seeds_inside"]),
    "no samples": (says(samples=REMOVED), ["run.json counts None samples, samples.npz holds 4"]),
    "num_samples": (
        says(num_samples=5000),
        ["run.json says ok of a run with 4 samples of the 5000 asked for"],
    ),
    "fewer asked": (
        says(num_samples=3),
        [
            "run.json asks for 3 samples, samples.npz holds 4",
        ],
    ),
    "asked": (
        says(asked=[ASKED[0].replace("-50", "-51"), ASKED[1]]),
        ["run.json asks fc8/monarch:-51:50, fc8/monarch in [-51, 50], and has the constraint "],
    ),
    "asked another": (
        says(asked=["fc8/banana:-50:50", ASKED[1]]),
        [
            "run.json asks fc8/banana:-50:50, fc8/banana in [-50, 50], and has the constraint ",
            "samples.npz stores other activations than 4 of the pictures have, off by up to ",
        ],
    ),
    "asked more": (
        says(asked=[*ASKED, ASKED[0]]),
        ["run.json asks 3 constraints, samples.npz has activations of 2"],
    ),
    "asked nonsense": (
        says(asked=["fc8/nobody:1:2", ASKED[1]]),
        ["run.json asks what cannot be asked: mini has no class 'nobody'"],
    ),
    "asked nothing": (says(asked=REMOVED), ["run.json does not say what was asked"]),
    "asked at length": (
        says(asked=["fc8/" + "a" * 4_000_000 + ":1:2", ASKED[1]]),
        ["run.json does not say what was asked"],
    ),
    "interval": (
        constraint(0, low=-40.0),
        ["run.json asks fc8/monarch:-50:50, fc8/monarch in [-50, 50], and has the constraint "],
    ),
    "name": (
        constraint(1, name="conv5/13@8,8"),
        ["run.json asks conv5/12@8,8:-100:100, conv5/12@8,8 in [-100, 100], and has "],
    ),
    "constraint": (
        constraint(1, low="x"),
        ["run.json has no constraints, each with a name and an interval"],
    ),
    "no rule": (says(rule=REMOVED), ["run.json gives the rule as None", "run.json gives no rule"]),
    "rule": (
        says(rule="paper"),
        ["run.json gives the rule as 'paper' and in its settings as 'two_sided'"],
    ),
    "model": (says(model=["x"]), ["run.json names its model in more than words"]),
    "link": (
        swap("samples.csv", lambda p: p.symlink_to("/dev/zero")),
        [f"samples.csv cannot be read: {LINK}"],
    ),
    "picture link": (
        swap("images/00002.png", lambda p: p.symlink_to("/dev/zero")),
        [f"images/00002.png cannot be read: {LINK}"],
    ),
    "npz link": (
        swap("samples.npz", lambda p: p.symlink_to("/dev/zero")),
        [f"samples.npz is damaged: {LINK}"],
    ),
    "pipe": (swap("samples.npz", os.mkfifo), [f"samples.npz is damaged: {PIPE}"]),
    "gallery pipe": (swap("gallery.html", os.mkfifo), [f"gallery.html cannot be read: {PIPE}"]),
    "picture pipe": (
        swap("images/00000.png", os.mkfifo),
        [f"images/00000.png cannot be read: {PIPE}"],
    ),
    "socket": (
        swap("grid.png", bind_socket),
        ["grid.png cannot be read: it is a socket, not a regular file"],
    ),
    "folder": (
        swap("grid.png", Path.mkdir),
        ["grid.png cannot be read: it is a folder, not a regular file"],
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_each_forgery_is_named(run, capsys, name):
    forge, expected = FORGERIES[name]
    forge(run)
    code, _, lines = judge(run, capsys)
    assert code == 3
    assert len(lines) == len(expected), lines
    for line, said in zip(lines, expected, strict=True):
        assert line.startswith(said), line


STRANGE = [None, [], {}, "x", "a" * 2000, -1, 1e308, True, 10**4000, [["x"]], {"name": "x"}]


@pytest.mark.parametrize("key", [*record(), "samples", "constraints"])
def test_no_value_of_the_record_is_an_internal_error(run, capsys, monkeypatch, key):
    monkeypatch.setattr(bind, "measure", lambda model, images, units: np.zeros((len(images), 2)))
    whole = (run / "run.json").read_text()
    for value in STRANGE:
        change(run, **{key: value})
        code = cli.run(["verify", str(run)])
        said = capsys.readouterr().err
        assert code in (2, 3, 4) and "internal" not in said, (value, said)
        assert all(len(line) < 500 for line in said.splitlines())
        (run / "run.json").write_text(whole)


def test_a_whole_run_is_whole(run, capsys):
    code, said, lines = judge(run, capsys)
    assert code == 0 and not lines
    assert f"{COUNT} of {COUNT} pictures lie inside" in said
    assert f"status: ok, {Status.OK.sentence}" in said
    assert f"{verify.TOLERANCE:g} of 1 + |activation| is allowed" in said


def test_pictures_outside_are_named(drawn, tmp_path, capsys):
    """A run that claims an interval which its own pictures do not keep."""
    samples, constraints = drawn
    median = float(np.median(samples.activations[:, 0]))
    asked = [f"fc8/monarch:{median!r}:50", ASKED[1]]
    constraints = [constraints[0]._replace(low=median), constraints[1]]
    results.save(tmp_path, samples, constraints, record(asked=asked), {}, "forged")
    code, said, lines = judge(tmp_path, capsys)
    outside = np.flatnonzero(samples.activations[:, 0] < median)
    assert code == 3 and f"{COUNT - len(outside)} of {COUNT} pictures lie inside" in said
    assert [line.split()[0] for line in lines] == [f"images/{i:05d}.png" for i in outside]


@pytest.mark.parametrize("bound", [10**400, -(10**400)], ids=["above", "below"])
def test_a_bound_that_no_float_holds_is_no_interval(bound):
    low, high = min(bound, 0), max(bound, 0)
    assert (
        examine.stated_intervals({"constraints": [{"name": "f", "low": low, "high": high}]}) is None
    )


def test_a_joint_run_may_be_stopped_with_all_of_its_samples(drawn, tmp_path, capsys):
    settings = {"rule": "two_sided", "method": "joint"}
    stopped = record(Status.INTERRUPTED, settings=settings)
    results.save(tmp_path, *drawn, stopped, {}, "joint")
    code, _, lines = judge(tmp_path, capsys)
    assert code == 0 and not lines


@pytest.mark.parametrize("status", [Status.PARTIAL, Status.INTERRUPTED, Status.NON_FINITE])
def test_an_honest_partial_run_verifies(drawn, tmp_path, capsys, status):
    results.save(tmp_path, *drawn, record(status, 10), {}, "partial")
    code, said, lines = judge(tmp_path, capsys)
    assert code == 0 and not lines
    assert f"status: {status.name.lower()}, {status.sentence}" in said


def test_an_honest_run_without_pictures_holds_none(drawn, tmp_path, capsys):
    samples = results.SampleSet(*(column[:0] for column in drawn[0]))
    results.save(tmp_path, samples, drawn[1], record(Status.INFEASIBLE, 10), {}, "none")
    code, _, lines = judge(tmp_path, capsys)
    assert code == 3 and "holds no pictures" in lines[0]
    (tmp_path / "grid.png").write_bytes(b"")
    assert judge(tmp_path, capsys)[2][0] == "grid.png does not belong to the run"


def test_other_weights_are_another_matter(run, capsys):
    change(run, weights={"mini_classifier.safetensors": "0"})
    assert judge(run, capsys)[0] == 4


def test_a_run_of_an_own_model_is_not_to_be_overwritten(run, capsys):
    change(run, model=REMOVED)
    code, _, lines = judge(run, capsys)
    assert code == 2 and "names no model" in lines[0] and "overwrite" not in " ".join(lines)
    one_pixel(run)
    (run / "grid.png").unlink()
    code, _, lines = judge(run, capsys)
    assert code == 3 and [line.split()[0] for line in lines] == ["grid.png", "images/00002.png"]


def test_many_faults_are_counted_and_not_all_printed(run, capsys, monkeypatch):
    monkeypatch.setattr(verify, "MOST_LINES", 2)
    all_pictures_one(run)
    (run / "grid.png").unlink()
    assert cli.run(["verify", str(run)]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5 and "and 2 more" in lines[2] and "4 faults" in lines[3]


def test_a_run_that_had_no_time_to_take_its_place_does_so(run, tmp_path, capsys):
    folder = tmp_path / "late"
    (folder / ".inverse_set").mkdir(parents=True)
    shutil.copytree(run, folder / ".inverse_set" / "ready")
    assert judge(folder, capsys)[0] == 0
    assert not (folder / ".inverse_set").exists()


def test_pictures_come_in_batches(drawn, run, monkeypatch):
    samples, record = results.load(run)
    monkeypatch.setattr(examine, "BATCH_BYTES", 3 * samples.images[0].nbytes)
    found = list(examine.batches(run, record, samples, pytest.fail))
    assert [len(rows) for rows, _ in found] == [3, 1]
    np.testing.assert_array_equal(np.concatenate([p for _, p in found]), samples.images)


def test_nothing_of_a_huge_picture_is_decoded(run, capsys, monkeypatch):
    for i in range(COUNT):
        huge_picture(run / f"images/{i:05d}.png")
    monkeypatch.setattr(Image, "open", pytest.fail)
    code, _, lines = judge(run, capsys)
    assert code == 3 and len(lines) == COUNT


def peak(call):
    """(what a call raises, most bytes that it held at a time)."""
    tracemalloc.start()
    try:
        call()
        outcome = None
    except results.ResultsError as error:
        outcome = error
    finally:
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return outcome, held


def test_arrays_are_in_memory_once(tmp_path):
    zeros = np.zeros((100, 300, 300, 3), np.uint8)
    flat, places = np.zeros((100, 1), np.float32), np.zeros(100, np.int32)
    samples = results.SampleSet(zeros, flat, flat, flat, flat, places, places)
    with open(tmp_path / "samples.npz", "wb") as file:
        results.arrays.write(file, samples)
    digest = hashlib.sha256((tmp_path / "samples.npz").read_bytes()).hexdigest()
    (tmp_path / "run.json").write_text(json.dumps({"files": {"samples.npz": digest}}))
    outcome, held = peak(lambda: results.load(tmp_path))
    assert outcome is None and held < 1.2 * zeros.nbytes


@pytest.mark.parametrize("unit", ["[],", "{},", '"\\u0100",', '{"a":{', "1,", "[[", '"a",'])
def test_memory_of_a_record_is_bounded(run, unit):
    """Eight megabytes of any pattern are refused or read within 256 MiB."""
    text = '{"files": {}, "x": [' + unit * ((8 << 20) // len(unit) - 20)
    (run / "run.json").write_text(text)
    outcome, held = peak(lambda: results.load(run))
    assert "run.json" in outcome.what and held < 256 << 20
