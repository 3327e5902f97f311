"""A sample set on disk: round trip, determinism, whole or not at all, hostile files."""

import csv
import errno
import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from inverse_set import results
from inverse_set.results import ResultsError, SampleSet

EVERYTHING = {"images", "run.json", *results.FILES}


class Interval(NamedTuple):
    name: str
    low: float
    high: float


CONSTRAINTS = (Interval("fc8/monarch", 9.0, 10.0), Interval('fc6/"17", b', -np.inf, 2.5))


def sample_set(n=4):
    """n samples of 6 x 5 pictures, D = 3, P = 2, F = 4; the second misses the first interval."""
    draw = np.random.default_rng(0)
    activations = draw.uniform((9, 0), (10, 2), (n, 2)).astype(np.float32)
    activations[1:2, 0] = 10.25
    return SampleSet(
        images=draw.integers(0, 256, (n, 6, 5, 3), np.uint8),
        codes=draw.normal(size=(n, 3)).astype(np.float32),
        activations=activations,
        raw_activations=activations + np.float32(0.01),
        features=draw.normal(size=(n, 4)).astype(np.float32),
        step=np.arange(n, dtype=np.int32) * 5,
        chain=np.arange(n, dtype=np.int32) % 2,
    )


def save(folder, samples=None, run=None):
    samples = sample_set() if samples is None else samples
    results.save(folder, samples, CONSTRAINTS, run or {"seed": 3}, {"Model": "mini"}, "asked for")
    return folder


def contents(folder):
    """{relative path: bytes} of all files under a folder."""
    paths = (path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def reseal(folder):
    """Makes run.json vouch for samples.npz as it is now, so that only deeper checks can object."""
    run = json.loads((folder / "run.json").read_text())
    run["files"]["samples.npz"] = hashlib.sha256((folder / "samples.npz").read_bytes()).hexdigest()
    (folder / "run.json").write_text(json.dumps(run))


def forge(folder, name, member, compression=zipfile.ZIP_STORED):
    """Replaces the bytes of one array inside samples.npz and reseals the run."""
    with zipfile.ZipFile(folder / "samples.npz") as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    members[f"{name}.npy"] = member
    with zipfile.ZipFile(folder / "samples.npz", "w", compression) as archive:
        for each, data in members.items():
            archive.writestr(each, data)
    reseal(folder)


def npy(array, **header):
    """Bytes of a .npy file, optionally with a header that lies."""
    stream = io.BytesIO()
    if not header:
        np.save(stream, array, allow_pickle=True)
        return stream.getvalue()
    true = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(stream, true | header)
    return stream.getvalue() + array.tobytes()


def refusal(call, *arguments):
    """The ResultsError that a call must raise; both its parts say something on one line."""
    with pytest.raises(ResultsError) as caught:
        call(*arguments)
    for line in (caught.value.what, caught.value.remedy):
        assert line and "\n" not in line
    return caught.value


def test_round_trip(tmp_path):
    folder = save(results.claim(tmp_path / "a" / "b"))
    samples, run = results.load(folder)
    for name, expected in sample_set()._asdict().items():
        found = getattr(samples, name)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    assert run["seed"] == 3
    assert {path.name for path in folder.iterdir()} == EVERYTHING
    np.testing.assert_array_equal(results.read_pictures(folder, 4), sample_set().images)


def test_npz_is_plain_numpy(tmp_path):
    with np.load(save(tmp_path) / "samples.npz", allow_pickle=False) as file:
        assert tuple(file) == SampleSet._fields
        np.testing.assert_array_equal(file["codes"], sample_set().codes)


def test_manifest_holds_the_digest_of_every_file(tmp_path):
    files = contents(save(tmp_path))
    told = json.loads(files.pop("run.json"))["files"]
    images = b"".join(files.pop(f"images/{i:05d}.png") for i in range(4))
    expected = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    assert told == expected | {"images/": hashlib.sha256(images).hexdigest()}


def test_same_arrays_same_bytes_at_any_time(tmp_path, monkeypatch):
    first = contents(save(tmp_path / "a"))
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 5, 33, 20, 2, 138, 0))
    assert contents(save(tmp_path / "b")) == first


def test_arrays_in_another_memory_order_give_the_same_bytes(tmp_path):
    first = contents(save(tmp_path / "a"))
    samples = sample_set()._replace(codes=np.asfortranarray(sample_set().codes))
    assert contents(save(tmp_path / "b", samples)) == first


def test_table(tmp_path):
    text = (save(tmp_path) / "samples.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(text)))
    samples = sample_set()
    assert [row["index"] for row in rows] == ["0", "1", "2", "3"]
    assert rows[2]["file"] == "images/00002.png"
    assert (rows[3]["step"], rows[3]["chain"]) == ("15", "1")
    assert [row["inside[fc8/monarch]"] for row in rows] == ["true", "false", "true", "true"]
    assert rows[0]['low[fc6/"17", b]'] == "-inf"
    assert rows[0]["high[fc8/monarch]"] == "10.0"
    for kind in ("activations", "raw_activations"):
        column = [np.float32(row[f"{kind[:-1]}[fc8/monarch]"]) for row in rows]
        np.testing.assert_array_equal(column, getattr(samples, kind)[:, 0])


def test_run_is_strict_json(tmp_path):
    run = {
        "a": float("nan"),
        "b": [np.float32(np.inf), np.arange(2)],
        3: Path("x"),
        "files": "ours",
    }
    text = (save(tmp_path, run=run) / "run.json").read_text()
    found = json.loads(text, parse_constant=pytest.fail)
    assert found["a"] is None
    assert found["b"] == [None, [0, 1]]
    assert found["3"] == "x"
    assert set(found["files"]) == {*results.FILES, "images/"}


def test_no_samples(tmp_path):
    folder = save(tmp_path, sample_set(0))
    assert {path.name for path in folder.iterdir()} == {"samples.npz", "samples.csv", "run.json"}
    samples, run = results.load(folder)
    assert samples.images.shape == (0, 6, 5, 3)
    assert set(run["files"]) == {"samples.npz", "samples.csv"}
    assert len(results.read_pictures(folder, 0)) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"images": np.zeros((4, 6, 5, 3), np.float32)},
        {"images": np.zeros((4, 6, 5, 1), np.uint8)},
        {"codes": np.zeros((3, 3), np.float32)},
        {"activations": np.zeros((4, 1), np.float32)},
        {"step": np.zeros((4, 1), np.int32)},
    ],
)
def test_wrong_arrays_are_refused_before_anything_is_removed(tmp_path, change):
    before = contents(save(tmp_path))
    with pytest.raises(ValueError):
        save(tmp_path, sample_set()._replace(**change))
    assert contents(tmp_path) == before


KILLED = """
import os, sys
sys.path[:0] = [{root!r}, {tests!r}]
from test_results import save
from inverse_set import results

def die_at(count):
    calls, real = iter(range(count)), os.fsync
    def step():
        if next(calls, None) is None:
            os._exit(9)
    def fsync(handle):
        step()
        real(handle)
    def audit(event, arguments):
        if event in ("open", "os.mkdir", "os.rename") and str(arguments[0]).startswith({out!r}):
            step()
    os.fsync = fsync
    sys.addaudithook(audit)

save({warm!r})  # so that children need not import what a first save does
for count in range(500):
    child = os.fork()
    if not child:
        die_at(count)
        save(os.path.join({out!r}, f"{{count:03d}}"))
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


def test_killed_at_any_point_leaves_nothing_that_looks_whole_and_is_not(tmp_path):
    whole = contents(save(tmp_path / "whole"))
    out, tests = tmp_path / "killed", Path(__file__).parent
    out.mkdir()
    script = KILLED.format(
        root=str(tests.parent), tests=str(tests), out=str(out), warm=str(tmp_path / "warm")
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    *killed, last = sorted(out.iterdir())
    assert contents(last) == whole
    assert len(killed) > 30  # each of eleven files is opened, synced and renamed, if only as a part
    for folder in killed:
        found = {k: v for k, v in contents(folder).items() if ".tmp-" not in k}
        assert found.items() <= whole.items(), folder.name
        pictures = [name for name in found if name.startswith("images/")]
        assert len(pictures) in (0, 4), folder.name
        if "run.json" in found:
            assert found == whole
        else:
            assert "run.json is missing" in refusal(results.load, folder).what
        results.claim(folder, overwrite=True)
        assert not list(folder.iterdir()), folder.name


def fail_at(monkeypatch, function, count, error):
    """Makes call number `count` of os.`function` raise `error`."""
    real, calls = getattr(os, function), iter(range(count))

    def step(*arguments):
        if next(calls, None) is None:
            raise error
        return real(*arguments)

    monkeypatch.setattr(os, function, step)


@pytest.mark.parametrize("count", [1, 3, 6, 16, 17])
def test_full_disk(tmp_path, monkeypatch, count):
    fail_at(monkeypatch, "fsync", count, OSError(errno.ENOSPC, "No space left on device"))
    error = refusal(save, tmp_path)
    assert "no space left" in error.what
    assert "--out" in error.remedy
    assert not (tmp_path / "run.json").exists()
    assert not [name for name in contents(tmp_path) if ".tmp-" in name]  # its space is given back


def test_other_disk_errors(tmp_path, monkeypatch):
    fail_at(monkeypatch, "replace", 2, OSError(errno.EIO, "Input/output error"))
    assert "Input/output error" in refusal(save, tmp_path).what


def test_file_system_that_cannot_sync_folders(tmp_path, monkeypatch):
    real = os.fsync

    def fsync(handle):
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    results.load(save(tmp_path))


def test_write_atomically_keeps_the_old_file_on_failure(tmp_path, monkeypatch):
    path = tmp_path / "a"
    results.write_atomically(path, b"old")
    fail_at(monkeypatch, "replace", 0, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        results.write_atomically(path, b"new")
    assert contents(tmp_path) == {"a": b"old"}


def test_second_save_that_fails_leaves_no_old_manifest(tmp_path, monkeypatch):
    save(tmp_path, sample_set(5))
    fail_at(monkeypatch, "replace", 3, OSError(errno.EIO, "Input/output error"))
    refusal(save, tmp_path)
    assert "not a finished run" in refusal(results.load, tmp_path).what


def test_second_save_leaves_no_old_pictures(tmp_path):
    save(tmp_path, sample_set(7))
    assert len(results.read_pictures(save(tmp_path, sample_set(3)), 3)) == 3


def test_claim_refuses_what_is_there_and_loses_nothing(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    save(tmp_path / "run")
    before = contents(tmp_path)
    assert "already holds another run" in refusal(results.claim, tmp_path / "run").what
    assert "is not empty" in refusal(results.claim, tmp_path / "other").what
    assert "--overwrite" in refusal(results.claim, tmp_path / "other").remedy
    assert contents(tmp_path) == before


def test_claim_leaves_a_fresh_folder_empty(tmp_path):
    folder = results.claim(tmp_path / "new")
    assert folder.is_dir()
    assert not list(folder.iterdir())
    assert results.claim(folder) == folder


def test_overwrite_removes_a_run_and_keeps_the_rest(tmp_path):
    foreign = {"notes.txt": b"1", "images/cat.png": b"2", "images/1.png": b"3", "a.tmp-1": b"4"}
    save(tmp_path)
    for name, data in foreign.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "grid.png.tmp-0123456789ab").write_bytes(b"left over")
    (tmp_path / "images.tmp-0123456789ab").mkdir()
    (tmp_path / "images.tmp-0123456789ab" / "00000.png").write_bytes(b"left over")
    results.claim(tmp_path, overwrite=True)
    assert contents(tmp_path) == foreign
    (tmp_path / "images" / "1.png").unlink()
    (tmp_path / "images" / "cat.png").rename(tmp_path / "images" / "cat.txt")
    save(tmp_path)
    assert (tmp_path / "images" / "cat.txt").read_bytes() == b"2"
    np.testing.assert_array_equal(results.read_pictures(tmp_path, 4), sample_set().images)


def test_overwrite_does_not_reach_through_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "00000.png").write_bytes(b"mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "images").symlink_to(tmp_path / "elsewhere")
    assert "images" in refusal(results.claim, tmp_path / "run", True).what
    assert (tmp_path / "elsewhere" / "00000.png").read_bytes() == b"mine"


def test_claim_of_an_unusable_place(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    assert "is a file" in refusal(results.claim, tmp_path / "file").what
    refusal(results.claim, tmp_path / "file" / "below")
    for name in ("grid.png", "run.json"):
        (tmp_path / name / name).mkdir(parents=True)
        assert "is a folder" in refusal(results.claim, tmp_path / name, True).what
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "images").write_text("")
    assert "not a folder" in refusal(results.claim, tmp_path / "images", True).what

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    save(tmp_path / "old")
    before = contents(tmp_path / "old")
    monkeypatch.setattr(Path, "write_bytes", refuse)
    assert "Permission denied" in refusal(results.claim, tmp_path / "new").what
    assert "Permission denied" in refusal(results.claim, tmp_path / "old", True).what
    assert contents(tmp_path / "old") == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": 3}', "[" * 100_000, "\xff"])
def test_load_refuses_a_bad_manifest(tmp_path, text):
    (save(tmp_path) / "run.json").write_bytes(text.encode("latin-1"))
    assert "run.json" in refusal(results.load, tmp_path).what


@pytest.mark.parametrize("constant", ["NaN", "-Infinity"])
def test_load_refuses_json_that_is_not_strict(tmp_path, constant):
    path = save(tmp_path) / "run.json"
    path.write_text(path.read_text().replace('"seed": 3', f'"seed": {constant}'))
    assert constant in refusal(results.load, tmp_path).what


@pytest.mark.parametrize("keep", [0, 10, 0.5, -1])
def test_load_refuses_a_truncated_npz(tmp_path, keep):
    path = save(tmp_path) / "samples.npz"
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    reseal(tmp_path)
    assert "samples.npz is damaged" in refusal(results.load, tmp_path).what


def test_load_refuses_a_missing_npz(tmp_path):
    (save(tmp_path) / "samples.npz").unlink()
    assert "samples.npz is missing" in refusal(results.load, tmp_path).what


def test_load_refuses_one_changed_byte(tmp_path):
    path = save(tmp_path) / "samples.npz"
    data = bytearray(path.read_bytes())
    data[data.index(sample_set().codes.tobytes())] ^= 1
    path.write_bytes(data)
    reseal(tmp_path)
    assert "samples.npz is damaged" in refusal(results.load, tmp_path).what


def test_load_refuses_the_samples_of_another_run(tmp_path):
    other = sample_set()._replace(step=np.full(4, 7, np.int32))
    data = (save(tmp_path / "b", other) / "samples.npz").read_bytes()
    (save(tmp_path / "a") / "samples.npz").write_bytes(data)
    assert "SHA-256" in refusal(results.load, tmp_path / "a").what


@pytest.mark.parametrize("shape", [(1 << 33, 3), (4, 1 << 62), (4, 2), (4, -3), (12,), (-4, -3)])
def test_load_refuses_a_shape_that_is_not_in_the_file(tmp_path, shape):
    forge(save(tmp_path), "codes", npy(sample_set().codes, shape=shape))
    assert "codes" in refusal(results.load, tmp_path).what


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("codes", np.array([["a", None, 1.0]] * 4, object), "expected <f4"),
        ("codes", np.zeros((4, 3)), "expected <f4"),
        ("codes", np.asfortranarray(np.eye(4, 3, dtype=np.float32)), "expected <f4"),
        ("codes", np.zeros((5, 3), np.float32), "codes has shape (5, 3)"),
        ("images", np.zeros((4, 6, 5, 4), np.uint8), "expected images"),
        ("raw_activations", np.zeros((4, 1), np.float32), "differ in shape"),
    ],
)
def test_load_refuses_other_types_and_shapes(tmp_path, name, array, said):
    forge(save(tmp_path), name, npy(array))
    assert said in refusal(results.load, tmp_path).what


def test_load_refuses_compressed_arrays(tmp_path):
    forge(save(tmp_path), "codes", npy(np.zeros((4, 3), np.float32)), zipfile.ZIP_DEFLATED)
    assert "compressed" in refusal(results.load, tmp_path).what


def test_load_refuses_more_than_its_cap(tmp_path, monkeypatch):
    save(tmp_path)
    results.load(tmp_path)
    monkeypatch.setattr(results, "MAX_BYTES", 500)
    assert "at most 500" in refusal(results.load, tmp_path).what


@pytest.mark.parametrize(
    "header",
    [b"", b"not numpy at all", b"\x93NUMPY\x01\x00\xff\xff{", b"\x93NUMPY\x09\x00\x02\x00{}"],
)
def test_load_refuses_what_is_not_npy(tmp_path, header):
    forge(save(tmp_path), "codes", header)
    assert "samples.npz is damaged" in refusal(results.load, tmp_path).what


def test_load_refuses_other_members(tmp_path):
    forge(save(tmp_path), "more", npy(np.zeros(4, np.float32)))
    assert "expected the arrays" in refusal(results.load, tmp_path).what


def test_pictures_missing_or_left_over(tmp_path):
    save(tmp_path)
    assert "00003.png does not belong" in refusal(results.read_pictures, tmp_path, 3).what
    assert "00004.png is missing" in refusal(results.read_pictures, tmp_path, 5).what
    (tmp_path / "images" / "00001.png").unlink()
    assert "00001.png is missing" in refusal(results.read_pictures, tmp_path, 4).what


@pytest.mark.parametrize("kind", ["truncated", "empty", "jpeg", "size", "bomb"])
def test_pictures_that_are_not_ours(tmp_path, kind, monkeypatch):
    path = save(tmp_path) / "images" / "00002.png"
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:70])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "jpeg":
        Image.new("RGB", (5, 6)).save(path, "JPEG")
    elif kind == "size":
        Image.new("RGB", (6, 5)).save(path, "PNG")
    elif kind == "bomb":
        Image.new("RGB", (10, 6)).save(path, "PNG")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    error = refusal(results.read_pictures, tmp_path, 4)
    assert "00002.png is damaged" in error.what
    assert kind != "bomb" or "exceeds limit" in error.what


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_pictures_of_another_mode(tmp_path, mode):
    Image.new(mode, (5, 6)).save(save(tmp_path, sample_set(1)) / "images" / "00000.png")
    assert f"got {mode}" in refusal(results.read_pictures, tmp_path, 1).what
