"""The training script from pictures to weight files, in its smallest configuration."""

import io
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from experiments import judge, scenes, tiny_imagenet
from inverse_set.models import mini, weights, zoo
from inverse_set.models.generator import Generator


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """The original folder layout: three classes of one colour each, with noise."""
    folder = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    wnids = ["n01", "n02", "n03"]
    (folder / "wnids.txt").write_text("\n".join(wnids))
    (folder / "words.txt").write_text("n01\tred\nn02\tgreen, emerald\nn03\tblue\n")
    (folder / "val" / "images").mkdir(parents=True)
    rows = []
    for number, wnid in enumerate(wnids):
        place = folder / "train" / wnid / "images"
        place.mkdir(parents=True)
        for index in range(24):
            array = rng.integers(0, 60, (64, 64, 3), np.uint8)
            array[:, :, number] += 150
            if index < 16:
                Image.fromarray(array).save(place / f"{index:02d}.JPEG")
            else:
                name = f"{wnid}_{index}.JPEG"
                Image.fromarray(array).save(folder / "val" / "images" / name)
                rows.append(f"{name}\t{wnid}\t0\t0\t62\t62")
    (folder / "val" / "val_annotations.txt").write_text("\n".join(rows))
    return folder


def command(folder, out, stage, *more):
    flags = [f"--stage={stage}", f"--data={folder}", f"--out={out}", "--passes=2,2,2"]
    flags += ["--classes=3", "--width=4", "--batch=16", "--checkpoint_every=5", "--threads=1"]
    flags += ["--steps=12", "--fall=4"]
    return [sys.executable, "-u", "-m", "experiments.train_mini", *flags, *more]


def train(*asked):
    done = subprocess.run(command(*asked), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def trained(pictures, tmp_path_factory):
    """(folder of all that ships, what each stage printed)."""
    out = tmp_path_factory.mktemp("trained")
    stages = ("classifier", "generator", "export", "judge", "scenes")
    return out, {stage: train(pictures, out, stage) for stage in stages}


def test_the_stages_end_in_a_model_that_loads(trained, monkeypatch):
    out, said = trained
    assert "loss" in said["classifier"] and "critic" in said["generator"]
    assert "valid_agreement" in said["generator"] and "own_agreement" in said["export"]
    monkeypatch.setattr(zoo, "FOLDER", out)
    zoo.load.cache_clear()
    model, scenic = zoo.load("mini"), zoo.load("mini", "scenes")
    zoo.load.cache_clear()
    assert model.encoder.labels == ("red", "green, emerald", "blue") and model.resolution == 64
    assert (np.diff(model.encoder.natural["fc8"], axis=0) >= 0).all()
    assert model.starts.shape[1] == model.codes.upper.shape[0]
    assert scenic.subject.labels == tuple(scenes.SCENES)
    assert set(scenic.subject.natural) == {"conv5", "fc6", "fc7", "fc8"}


def test_it_measures_what_the_training_saw(trained):
    """PyTorch's last word on the classifier, and JAX's on its file of fp16."""
    _, said = trained
    top1 = [line.split()[-1] for line in said["export"].splitlines() if line.startswith("top1")]
    seen = said["generator"].split("valid_top1 ")[-1].split()[0]
    assert abs(float(top1[0]) - float(seen)) <= 1 / 24 + 1e-3  # one of 24 pictures


def test_the_judge_judges(trained, monkeypatch):
    out, _ = trained
    monkeypatch.setattr(judge, "PATH", out / "mini_judge.safetensors")
    features, logits = judge.look(judge.load(), np.zeros((2, 64, 64, 3), np.uint8))
    assert features.shape == (2, 256) and logits.shape == (2, 3)
    assert np.isfinite(logits).all()


def test_a_stage_without_the_one_before_it_says_so(pictures, tmp_path):
    done = subprocess.run(
        command(pictures, tmp_path, "generator"), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1
    assert "classifier.safetensors is missing\nrun --stage=classifier first" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_generator_goes_on_from_a_file(pictures, trained, tmp_path):
    """At a rate of next to nothing it draws what the file's does, and a longer schedule goes on."""
    out, _ = trained
    for name in ("classifier.safetensors", "generator.safetensors"):
        shutil.copy(out / name, tmp_path / name)
    start = f"--start={tmp_path / 'generator.safetensors'}"
    said = train(pictures, tmp_path, "generator", start, "--rate=1e-6", "--steps=1")
    before, after = (
        safetensors.numpy.load_file(folder / "generator.safetensors") for folder in (out, tmp_path)
    )
    assert set(before) == set(after) and "step      1" in said
    codes = np.random.default_rng(0).random((4, 128), np.float32)
    images = [
        Generator(mini.generator_plan(4, residual=True)).apply(
            {"params": weights.tree({k: v.astype(np.float32) for k, v in tensors.items()})}, codes
        )
        for tensors in (before, after)
    ]
    np.testing.assert_allclose(*images, atol=0.05)
    assert "step      2" in train(pictures, tmp_path, "generator", "--steps=2")


@pytest.mark.parametrize("stage", ["classifier", "generator"])
def test_an_interrupted_training_repeats_itself(pictures, trained, tmp_path, stage):
    """Killed after its first checkpoint and started again, it ends with the same weights."""
    out, said = trained
    if stage == "generator":
        shutil.copy(out / "classifier.safetensors", tmp_path)
    process = subprocess.Popen(
        command(pictures, tmp_path, stage),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    for line in process.stdout:
        if line.startswith("step"):
            process.kill()
            break
    process.stdout.close()
    process.wait()
    assert not (tmp_path / f"{stage}.safetensors").exists()
    again = train(pictures, tmp_path, stage)
    assert "step      5 " in said[stage] and "step      5 " not in again
    whole = (out / f"{stage}.safetensors").read_bytes()
    assert (tmp_path / f"{stage}.safetensors").read_bytes() == whole


def test_every_label_is_in_one_scene_at_most():
    labels = [label for labels in scenes.SCENES.values() for label in labels]
    assert len(set(labels)) == len(labels)
    assert set(labels) <= set(range(200))


def test_shards_and_folders_hold_the_same_pictures(pictures, tmp_path):
    import pyarrow
    import pyarrow.parquet

    images, labels = tiny_imagenet.load(pictures, "train", [0, 2])
    assert images.shape == (32, 64, 64, 3) and labels.tolist() == [0] * 16 + [1] * 16
    records = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        records.append({"bytes": buffer.getvalue(), "path": None})
    table = pyarrow.table({"image": records, "label": [0] * 16 + [2] * 16})
    pyarrow.parquet.write_table(table, tmp_path / "train-00000-of-00001.parquet")
    again, numbers = tiny_imagenet.load(tmp_path, "train", [0, 2])
    np.testing.assert_array_equal(again, images)
    np.testing.assert_array_equal(numbers, labels)
    few, numbers = tiny_imagenet.load(tmp_path, "train", [2, 0], slice(3, 5))
    np.testing.assert_array_equal(few, images[[19, 20, 3, 4]])
    np.testing.assert_array_equal(numbers, [0, 0, 1, 1])


def test_the_real_shards(request):
    folder = request.config.getoption("--data")
    if not folder or not pathlib.Path(folder).exists():
        pytest.skip("no folder of Tiny ImageNet given (--data)")
    images, labels = tiny_imagenet.load(folder, "valid", [44, 188])
    assert images.shape == (50, 64, 64, 3)
    assert np.bincount(labels).tolist() == [25, 25]
    assert "monarch" in tiny_imagenet.class_names(folder)[44][1]
