"""What the training stages share, on updates of a line, and both stages at 64 pixels."""

import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from experiments import augment, judge, mini_classifier, mini_export, mini_generator, training
from inverse_set.models import mini, weights


class State(NamedTuple):
    value: Any
    step: Any


def initial():
    return State(jnp.float32(0), jnp.int32(0))


def update(state, total, data):
    """Adds the numbers that are drawn, weighted by the rate."""
    chosen = data[training.draw(jax.random.key(0), state.step, len(data), 4)]
    value = state.value + training.rate(state.step, total, 1.0, 0.2) * chosen.sum()
    return State(value, state.step + 1), {"loss": value}


def schedule(**changes):
    return {
        "steps": 23,
        "default_steps": 40,
        "batch": 4,
        "learning_rate": 1e-3,
        "log_every": 5,
        "checkpoint_every": 10,
        "deadline": None,
        "precision": "float32",
        "looped": False,
    } | changes


def run(out, report=lambda *_: None, **changes):
    out.mkdir(exist_ok=True)
    data = jnp.arange(10.0)
    return training.run("toy", schedule(**changes), out, initial, update, data, report)


class Clock:
    """Passes `tick` seconds at every look."""

    def __init__(self, tick):
        self.now, self.tick = 0.0, tick

    def __call__(self):
        self.now += self.tick
        return self.now


def test_steps_in_one_program_are_the_same_steps(tmp_path):
    expected, looped = run(tmp_path / "single"), run(tmp_path / "looped", looped=True)
    assert looped.step == expected.step == 23
    np.testing.assert_allclose(looped.value, expected.value, rtol=1e-6)
    lines = [(tmp_path / out / "toy.log").read_text() for out in ("single", "looped")]
    assert [[line.split()[1] for line in text.splitlines()] for text in lines] == [
        ["5", "10", "15", "20"],
        ["5", "10", "15", "20"],
    ]


@pytest.mark.parametrize("looped", [False, True])
def test_time_runs_out_and_a_rerun_ends_the_same(tmp_path, monkeypatch, looped, capsys):
    """A look at the clock costs a second; nothing goes on that might outlast the limit."""
    expected = run(tmp_path / "whole", looped=looped)
    reports = []
    kept = {"report": lambda state, step, log: reports.append(step), "looped": looped}
    clock, limit = Clock(1.0), training.RESERVE + (9 if looped else 16)
    monkeypatch.setattr(training, "clock", clock)
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path / "cut", deadline=limit, **kept)
    assert stopped.value.code == training.STOPPED
    assert clock.now < limit
    assert 0 < reports[-1] < 23 and f"at step {reports[-1]} of 23" in capsys.readouterr().out
    again = run(tmp_path / "cut", **kept)
    assert reports[-1] == 23
    whole, cut = ((tmp_path / out / "toy.msgpack").read_bytes() for out in ("whole", "cut"))
    assert again.step == expected.step and whole == cut


def test_as_many_steps_as_fit(tmp_path, monkeypatch):
    """Timed, written down for the rerun, and never more than the default; a rehearsal first."""
    reports = []
    monkeypatch.setattr(training, "clock", Clock(1.0))
    changes = {"steps": None, "report": lambda state, step, log: reports.append(step)}
    state = run(tmp_path / "short", deadline=training.RESERVE + 100, looped=True, **changes)
    # 40 steps are timed and seem to take a second: all 40 fit.
    assert state.step == 40 and reports[0] == 0 and reports[-1] == 40
    monkeypatch.setattr(training, "clock", Clock(20.0))
    with pytest.raises(SystemExit, match="no time"):
        run(tmp_path / "none", deadline=training.RESERVE + 90, **changes)
    assert not (tmp_path / "none" / "toy.json").exists()
    with pytest.raises(SystemExit):
        run(tmp_path / "few", deadline=training.RESERVE + 200, **changes)
    # Two steps take 20 s, and six looks at the clock took 120 before.
    planned = json.loads((tmp_path / "few" / "toy.json").read_text())["steps"]
    assert 1 <= planned <= 12
    assert run(tmp_path / "few", **changes).step == planned


def test_what_is_not_finite_ends_the_stage(tmp_path):
    with pytest.raises(SystemExit, match="not finite after step 1"):
        training.run(
            "toy", schedule(), tmp_path, initial, update, jnp.full(10, jnp.nan), lambda *_: None
        )
    assert not (tmp_path / "toy.msgpack").exists()


def test_a_pass_draws_every_picture_once():
    key = jax.random.key(3)
    passes = [
        np.concatenate([training.draw(key, jnp.int32(step + start), 12, 4) for step in range(3)])
        for start in (0, 3)
    ]
    assert [sorted(numbers) for numbers in passes] == [list(range(12))] * 2
    assert (passes[0] != passes[1]).any()
    with pytest.raises(ValueError, match="13 pictures is more than there are: 12"):
        training.draw(key, jnp.int32(0), 12, 13)


def test_rate_rises_and_falls():
    rates = np.asarray([training.rate(step, 100, 2.0, 0.2) for step in range(100)])
    assert rates.argmax() in (19, 20) and 1.9 < rates.max() <= 2
    assert (np.diff(rates[:19]) > 0).all() and (np.diff(rates[20:]) < 0).all()
    assert 0 < rates[0] < 0.1 and 0 < rates[-1] < 0.01


@pytest.mark.parametrize("resolution", [32, 64])
def test_augmented_pictures(resolution):
    key, images = jax.random.key(0), np.zeros((32, 64, 64, 3), np.uint8)
    images[:] = np.arange(32, dtype=np.uint8)[:, None, None, None] * 8
    seen = jax.jit(augment.augment, static_argnums=2)(key, images, resolution)
    assert seen.shape == (32, resolution, resolution, 3)
    assert (seen >= 0).all() and (seen <= 1).all()
    inside = np.asarray(seen).std((1, 2)).max(1) > 1e-3  # of a flat picture: has a box
    assert 0 < inside.mean() < 0.6 if resolution == 64 else not inside.any()


def test_mixed_pictures_have_the_targets_of_their_pixels():
    n = 64
    images = jnp.broadcast_to(jnp.arange(float(n))[:, None, None, None], (n, 16, 16, 3))
    mixed, targets = augment.mix(jax.random.key(1), images, jnp.eye(n))
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-5)
    expected = targets @ jnp.arange(float(n))
    np.testing.assert_allclose(mixed.mean((1, 2, 3)), expected, rtol=1e-4, atol=1e-3)
    boxed = (np.asarray(mixed).std((1, 2)) > 1e-4).any(1)
    assert 0.2 < boxed.mean() < 0.8


def test_the_pair_at_64_pixels_fits():
    """Every weight in fp16; natural activations and codes come on top."""
    settings = {"classes": list(range(200)), "resolution": 64, "width": 32}
    said = mini_export.sizes(settings)
    together = float(said.split("together ")[1].split()[0])
    assert 15 < together < mini_export.LIMIT - 1.5, said
    plan = mini.classifier_plan(200, 64)
    assert [layer.features for layer in plan if layer.name in ("fc6", "fc8")] == [1024, 200]


def test_codes_without_pictures():
    codes = jnp.abs(jax.random.normal(jax.random.key(0), (16, 64))) * (jnp.arange(64) % 2)
    made = mini_generator.without_pictures(jax.random.key(1), codes, 4, 2)
    assert made.shape == (6, 64) and (made >= 0).all()
    assert (np.asarray(made)[:, ::2] == 0).all()  # what is silent stays so
    bounds = np.minimum(codes[:4], codes[4:8]), np.maximum(codes[:4], codes[4:8])
    assert (made[:4] >= bounds[0] - 1e-6).all() and (made[:4] <= bounds[1] + 1e-6).all()
    assert not np.isclose(made[4:], codes[-2:])[:, 1::2].any(axis=1).all()


def test_both_stages_at_64_pixels(tmp_path, monkeypatch):
    """Two steps of one program, with a teacher and in bfloat16; the generator's are traced only."""
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (16, 64, 64, 3), np.uint8), np.arange(16, dtype=np.int32) % 3
    settings = {"classes": [0, 1, 2], "resolution": 64, "width": 4, "seed": 0}
    shapes = weights.shapes(judge.Judge(3, (4, 8), 2), (64, 64, 3))
    teacher = {
        f"{layer}/{leaf}": np.asarray(0.1 * rng.normal(size=shape), np.float16)
        for layer, leaves in shapes.items()
        for leaf, shape in leaves.items()
    }
    safetensors.numpy.save_file(teacher, tmp_path / "teacher.safetensors")
    asked = schedule(steps=2, batch=8, log_every=2, looped=True, precision="bfloat16")
    average = mini_classifier.train(settings, asked, data, data, tmp_path)
    leaves = jax.tree.leaves(average)
    assert all(leaf.dtype == np.float32 and np.isfinite(leaf).all() for leaf in leaves)
    assert np.abs(average["params"]["conv1"]["kernel"]).max() < 10

    def trace(name, schedule, out, initial, update, data, report):
        state = jax.eval_shape(initial)
        after, losses = jax.eval_shape(update, state, jnp.float32(2), data)
        assert after == state  # or no loop could carry it
        assert set(losses) >= {"pixels", "relu6", "critic", "penalty"}
        assert after.variables["params"]["deconv0"]["kernel"].shape == (3, 3, 4, 3)
        raise InterruptedError

    monkeypatch.setattr(training, "run", trace)
    with pytest.raises(InterruptedError):
        mini_generator.train(settings, asked, data, data, tmp_path)
