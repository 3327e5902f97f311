"""A sample set on disk: round trip, determinism, hostile files."""

import csv
import hashlib
import io
import json
import os
import re
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from inverse_set import results
from inverse_set.results import ResultsError, SampleSet
from inverse_set.store import samples

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


def save(folder, found=None, run=None):
    found = sample_set() if found is None else found
    results.save(folder, found, CONSTRAINTS, run or {"seed": 3}, {"Model": "mini"}, "asked for")
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
    folder = tmp_path / "a" / "b"
    with results.claim(folder) as place:
        save(place)
    loaded, run = results.load(folder)
    for name, expected in sample_set()._asdict().items():
        found = getattr(loaded, name)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    assert run["seed"] == 3
    assert {path.name for path in folder.iterdir()} == EVERYTHING
    for i, image in enumerate(sample_set().images):
        with Image.open(folder / "images" / f"{i:05d}.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), image)


def test_npz_is_plain_numpy(tmp_path):
    with np.load(save(tmp_path) / "samples.npz", allow_pickle=False) as file:
        assert tuple(file) == SampleSet._fields
        np.testing.assert_array_equal(file["codes"], sample_set().codes)


def test_manifest_holds_the_digest_of_every_file(tmp_path):
    files = contents(save(tmp_path))
    told = json.loads(files.pop("run.json"))["files"]
    assert told == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def test_same_arrays_same_bytes_at_any_time(tmp_path, monkeypatch):
    first = contents(save(tmp_path / "a"))
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 5, 33, 20, 2, 138, 0))
    assert contents(save(tmp_path / "b")) == first


def test_arrays_in_another_memory_order_give_the_same_bytes(tmp_path):
    first = contents(save(tmp_path / "a"))
    other = sample_set()._replace(codes=np.asfortranarray(sample_set().codes))
    assert contents(save(tmp_path / "b", other)) == first


def test_table(tmp_path):
    text = (save(tmp_path) / "samples.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(text)))
    expected = sample_set()
    assert [row["index"] for row in rows] == ["0", "1", "2", "3"]
    assert rows[2]["file"] == "images/00002.png"
    assert (rows[3]["step"], rows[3]["chain"]) == ("15", "1")
    assert [row["inside[fc8/monarch]"] for row in rows] == ["true", "false", "true", "true"]
    assert rows[0]['low[fc6/"17", b]'] == "-inf"
    assert rows[0]["high[fc8/monarch]"] == "10.0"
    for kind in ("activations", "raw_activations"):
        column = [np.float32(row[f"{kind[:-1]}[fc8/monarch]"]) for row in rows]
        np.testing.assert_array_equal(column, getattr(expected, kind)[:, 0])


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
    assert set(found["files"]) == {*results.FILES, *(f"images/{i:05d}.png" for i in range(4))}
    assert found["samples"] == 4
    assert found["constraints"][1] == {"name": CONSTRAINTS[1].name, "low": None, "high": 2.5}


def test_no_samples(tmp_path):
    folder = save(tmp_path, sample_set(0))
    assert {path.name for path in folder.iterdir()} == {"samples.npz", "samples.csv", "run.json"}
    loaded, run = results.load(folder)
    assert loaded.images.shape == (0, 6, 5, 3)
    assert set(run["files"]) == {"samples.npz", "samples.csv"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": np.zeros((4, 6, 5, 3), np.float64)}, "expected uint8 images"),
        ({"images": np.zeros((4, 6, 5, 2), np.uint8)}, "expected images [n, H, W, 1 or 3], or <f4"),
        ({"images": np.zeros((4, 8, 8), np.uint8)}, "expected images [n, H, W, 1 or 3], or"),
        ({"images": np.zeros(4, np.float32)}, "expected images [n, H, W, 1 or 3], or <f4 [n, ...]"),
        ({"codes": np.zeros((3, 3), np.float32)}, "codes (3, 3) are of 3 samples, images (4, 6"),
        ({"codes": np.zeros((4, 3), complex)}, "expected float32 codes, got complex128"),
        ({"features": np.full((4, 3), "x")}, "expected float32 features, got <U1"),
        ({"activations": np.zeros((4, 1), np.float32)}, "differ in shape"),
        ({"activations": np.zeros((4, 1)), "raw_activations": np.zeros((4, 1))}, "[n, 2], one col"),
        ({"step": np.zeros((4, 1), np.int32)}, "expected step [n], got (4, 1)"),
    ],
)
def test_wrong_arrays_are_refused_before_anything_is_removed(tmp_path, change, said):
    before = contents(save(tmp_path))
    with pytest.raises(ValueError, match=re.escape(said)):
        save(tmp_path, sample_set()._replace(**change))
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"files": 3}',
        '{"files": {}}',
        '{"files": {"../x": "0"}}',
        "[" * 100_000,
        "[" * 1_000_000,
        '{"files": {"samples.npz": "' + "0" * 9_000_000 + '"}}',
        "\xff",
    ],
)
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
        ("codes", np.zeros((5, 3), np.float32), "codes (5, 3) are of 5 samples"),
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
    monkeypatch.setattr(samples, "MAX_BYTES", 500)
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


def test_load_refuses_a_zip_of_too_many_entries_before_they_are_read(tmp_path, monkeypatch):
    path = save(tmp_path) / "samples.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(7):
            archive.writestr(f"{i}" * 1000, b"")
    monkeypatch.setattr(zipfile.ZipFile, "__init__", pytest.fail)
    assert "directory has" in refusal(results.load, tmp_path).what


@pytest.mark.parametrize("name", ["samples.npz", "run.json"])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "a pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "a symbolic link"),
        (Path.mkdir, "a folder"),
    ],
)
def test_load_opens_regular_files_only(tmp_path, name, make, said):
    path = save(tmp_path) / name
    path.unlink()
    make(path)
    error = refusal(results.load, tmp_path)
    assert name in error.what and said in error.what
