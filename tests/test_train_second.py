"""The script of the two further classifiers, from pictures to weight files."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from experiments import judge, train_second
from inverse_set.models import zoo


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """The original folder layout: 22 labels, some of them in scenes, of noise."""
    folder = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    wnids = [f"n{number:02d}" for number in range(22)]
    (folder / "wnids.txt").write_text("\n".join(wnids))
    (folder / "words.txt").write_text("".join(f"{wnid}\tname of {wnid}\n" for wnid in wnids))
    (folder / "val" / "images").mkdir(parents=True)
    rows = []
    for wnid in wnids:
        place = folder / "train" / wnid / "images"
        place.mkdir(parents=True)
        for index in range(6):
            picture = Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8))
            name = f"{wnid}_{index}.JPEG"
            picture.save((place if index < 4 else folder / "val" / "images") / name)
            if index >= 4:
                rows.append(f"{name}\t{wnid}\t0\t0\t62\t62")
    (folder / "val" / "val_annotations.txt").write_text("\n".join(rows))
    return folder


def train(which, data, out, export):
    flags = [f"--which={which}", f"--data={data}", f"--out={out}", f"--export={export}"]
    flags += ["--classes=3", "--steps=2", "--batch=8", "--log_every=1", "--checkpoint_every=1"]
    command = [sys.executable, "-m", "experiments.train_second", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def train_twice(which, data, folder):
    """The file that two steps end in; a second start finds them done and writes it again."""
    path, again = folder / f"mini_{which}.safetensors", folder / "again.safetensors"
    said = train(which, data, folder / "out", path)
    assert "loss" in said and "top-1" in said
    said = train(which, data, folder / "out", again)
    assert "loss" not in said and "top-1" in said
    assert again.read_bytes() == path.read_bytes()
    return path


def test_the_judge(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(judge, "PATH", train_twice("judge", pictures, tmp_path))
    images = np.zeros((2, 32, 32, 3), np.uint8)
    features, logits = judge.look(judge.load(), images)
    assert features.shape == (2, 256) and logits.shape == (2, 3)
    assert np.isfinite(logits).all()


def test_scenes(pictures, tmp_path, monkeypatch):
    train_twice("scenes", pictures, tmp_path)
    for path in zoo.files("mini"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    subject = zoo.load.__wrapped__("mini", "scenes").subject
    assert subject.labels == tuple(train_second.SCENES)
    assert set(subject.natural) == {"conv5", "fc6", "fc7", "fc8"}
    assert (np.diff(subject.natural["fc8"], axis=0) >= 0).all()


def test_every_label_is_in_one_scene_at_most():
    labels = [label for labels in train_second.SCENES.values() for label in labels]
    assert len(set(labels)) == len(labels)
    assert set(labels) <= set(range(200))


def test_seconds_add_up_over_starts(tmp_path):
    log = "step      1       26 s  loss 3.7\nstep      2       45 s  loss 3.3\n"
    again = "step      2       20 s  loss 3.3\nstep      2       22 s  valid 0.5\n"
    (tmp_path / "log").write_text(log + again)
    assert train_second.logged_seconds(tmp_path / "log") == 45 + 22
