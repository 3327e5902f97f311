"""The whole method on problems whose inverse sets are known in closed form."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from inverse_set import diversity, run, sampler, seeds
from inverse_set.settings import Natural, Settings
from inverse_set.types import Constraint, Status, networks
from tests import toys


def starts(count, size, seed=0):
    return np.random.default_rng(seed).uniform(size=(count, size)).astype(np.float32)


def cube(size):
    return Natural(lower=np.zeros(size, np.float32), upper=np.ones(size, np.float32))


@pytest.fixture(scope="module")
def on_the_circle():
    start = np.random.default_rng(0).uniform(-3, 3, (10, 1)).astype(np.float32)
    return run.sample(toys.CIRCLE, [Constraint("cos", 0.5, 0.8)], start, 200)


def test_the_arcs_are_covered(on_the_circle):
    """Both arcs, each from arccos .8 nearly to arccos .5."""
    first, second = on_the_circle.images.T
    assert on_the_circle.status == Status.OK
    assert ((first >= 0.5) & (first <= 0.8)).all()
    for sign in (-1, 1):
        angles = np.arccos(first[np.sign(second) == sign])
        assert len(angles) > 50
        whole = np.arccos(0.5) - np.arccos(0.8)
        assert np.ptp(angles) > 0.5 * whole


def test_the_minimum_of_steps(on_the_circle):
    """190 samples after 10 seeds are 19 steps of 10."""
    assert on_the_circle.sample_steps == 19
    assert len(on_the_circle.images) == 200
    assert np.bincount(on_the_circle.chain, minlength=10).tolist() == [20] * 10
    assert on_the_circle.step.tolist() == np.repeat(range(20), 10).tolist()


def test_the_same_start_gives_the_same_bits(on_the_circle):
    start = np.random.default_rng(0).uniform(-3, 3, (10, 1)).astype(np.float32)
    again = run.sample(toys.CIRCLE, [Constraint("cos", 0.5, 0.8)], start, 200)
    for a, b in zip(again[:6], on_the_circle[:6], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("rule", ["two_sided", "paper"])
def test_the_logistic_neuron_of_sec_3_1(rule):
    """sigma(w.x + c) >= z1 on the unit cube is a half-space cut of the cube."""
    weights = jnp.asarray([[1.0, -2.0, 1.5, 0.5]])
    net = toys.neuron(weights, jnp.asarray([-0.5]), logistic=True)
    low, high = 0.7, 0.95
    settings = Settings(rule=rule, seed_steps=2000)
    found = run.sample(net, [Constraint("sigma", low, high)], starts(10, 4), 100, settings, cube(4))
    x = found.images
    drive = x @ np.asarray(weights[0]) - 0.5
    logit = np.log(low / (1 - low))
    assert len(x) == 100
    assert (x >= 0).all() and (x <= 1).all()
    assert (drive >= logit - 1e-5).all()
    if rule == "two_sided":
        assert (drive <= np.log(high / (1 - high)) + 1e-5).all()
        assert np.ptp(drive) > 0.5 * (np.log(high / (1 - high)) - logit)


def test_an_intersection_of_two_half_spaces():
    net = toys.neuron(jnp.asarray([[1.0, 1.0, 0.0], [0.0, 1.0, -1.0]]), jnp.zeros(2))
    asked = [Constraint("a", 1.2, 1.6), Constraint("b", -0.1, 0.1)]
    found = run.sample(net, asked, starts(6, 3), 60, natural=cube(3))
    a, b = found.images[:, 0] + found.images[:, 1], found.images[:, 1] - found.images[:, 2]
    assert found.status == Status.OK
    assert ((a >= 1.2) & (a <= 1.6) & (np.abs(b) <= 0.1 + 1e-6)).all()


def test_the_joint_method_moves_all_codes_together():
    """Eq. 16 in micro-batches; its codes end further apart than the seeds where they stopped."""
    asked = [Constraint("cos", 0.5, 0.8)]
    start = np.random.default_rng(0).uniform(-3, 3, (30, 1)).astype(np.float32)
    settings = Settings(method="joint", micro=7)
    joint = run.sample(toys.CIRCLE, asked, start, 30, settings)
    early = run.sample(toys.CIRCLE, asked, start, 30, settings._replace(stop="inside"))
    assert joint.status == Status.PLATEAU
    assert early.status == Status.OK
    spread = [np.var(result.images, axis=0).sum() for result in (joint, early)]
    assert spread[0] > spread[1]
    first = joint.images[:, 0]
    assert ((first >= 0.5) & (first <= 0.8)).all()


def test_other_domains_need_no_images():
    """Vectors of any shape may stand for images, and any optax transformation may optimise."""
    net = networks(
        lambda codes: codes[:, :, None] * jnp.ones((1, 1, 2)),
        lambda volumes: volumes.reshape(volumes.shape[0], -1),
        lambda volumes: volumes.sum((1, 2))[:, None],
    )
    settings = Settings(optimiser=optax.rmsprop(0.02))
    found = run.sample(net, [Constraint("sum", 3.0, 4.0)], starts(4, 3), 20, settings)
    assert found.images.shape == (20, 3, 2)
    assert found.status == Status.OK


def test_other_distances():
    """E of the circle is the identity: images and encodings lead the same way, the others not."""
    start = np.random.default_rng(0).uniform(-3, 3, (5, 1)).astype(np.float32)
    codes = {}
    for distance in diversity.DISTANCES:
        settings = Settings(distance=distance)
        found = run.sample(toys.CIRCLE, [Constraint("cos", 0.5, 0.8)], start, 5, settings)
        assert found.status == Status.OK
        codes[distance] = found.codes
    np.testing.assert_allclose(codes["image"], codes["encoder"], rtol=1e-4)
    for other in ("code", "none"):
        assert np.abs(codes[other] - codes["encoder"]).max() > 0.01
    assert np.abs(codes["code"] - codes["none"]).max() > 0.01


def circle(count, wanted, settings=None, **more):
    start = np.random.default_rng(0).uniform(-3, 3, (count, 1)).astype(np.float32)
    return run.sample(toys.CIRCLE, [Constraint("cos", 0.5, 0.8)], start, wanted, settings, **more)


@pytest.mark.parametrize(("phase", "least"), [("compile", 0), ("seeds", 0), ("samples", 8)])
def test_a_run_can_be_stopped_in_every_phase_and_keeps_what_it_has(phase, least):
    """Whatever it found by then is a sample; that all seeds are inside is no reason to go on."""
    found = circle(4, 400, progress=lambda now, *_: now == phase)
    assert found.status == Status.INTERRUPTED
    assert least <= len(found.images) <= 44 and len(found.codes) == len(found.images)
    first = found.images[:, 0]
    assert ((first >= 0.5) & (first <= 0.8)).all()


@pytest.mark.parametrize(("seconds", "expected"), [(0.45, [1, 3, 7, 9]), (3.0, [*range(1, 10), 9])])
def test_a_stop_is_served_between_slices_of_about_a_second(seconds, expected, monkeypatch):
    """By a clock to which every slice takes as long: a short one is followed by a longer one, and
    where a step takes more than a second, every step is one, and so is the last look at the codes.
    inner_steps does not matter."""
    clock = iter(np.arange(0, 1e6, seconds))
    monkeypatch.setattr(run, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    seen = []
    settings = Settings(optimiser=optax.sgd(1e-6), seed_steps=9)
    circle(4, 4, settings, progress=lambda phase, done, *_: seen.append((phase, done)))
    assert [done for phase, done in seen if phase == "seeds"] == expected


def test_where_a_walk_ends_does_not_depend_on_how_it_is_cut(monkeypatch):
    whole = circle(5, 203, Settings(walk="refine"))
    monkeypatch.setattr(run, "SLICE", 0.0)
    for a, b in zip(circle(5, 203, Settings(walk="refine")), whole, strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_key_is_another_sample_from_the_same_start():
    """Not under the paper rule, which leaves nothing to chance."""
    paper = Settings(rule="paper", step=1e-3)
    runs = {
        (settings, key): circle(4, 200, settings, key=jax.random.key(key)).activations[4:, 0]
        for settings in (None, paper)
        for key in (1, 2)
    }
    assert abs(np.corrcoef(runs[None, 1], runs[None, 2])[0, 1]) < 0.3
    np.testing.assert_array_equal(runs[paper, 1], runs[paper, 2])


@pytest.mark.parametrize(
    "change",
    [{"rule": "both"}, {"method": "all"}, {"distance": "pixels"}, {"memory": "x"}, {"stop": "x"}],
)
def test_settings_that_do_not_exist(change):
    with pytest.raises(ValueError, match=r"expected .* among"):
        run.sample(
            toys.CIRCLE,
            [Constraint("cos", 0.5, 0.8)],
            np.ones((2, 1)),
            4,
            Settings(**change),
        )


def test_shapes_that_cannot_work():
    asked = [Constraint("cos", 0.5, 0.8)]
    for start, count, settings in (
        (np.ones(3), 4, Settings()),
        (np.ones((5, 1)), 4, Settings()),
        (np.ones((3, 1)), 4, Settings(method="joint")),
    ):
        with pytest.raises(ValueError, match=r"expected|needs"):
            run.sample(toys.CIRCLE, asked, start, count, settings)


def test_networks_of_the_wrong_shape():
    three = networks(lambda c: c, lambda x: x, lambda x: x)
    with pytest.raises(ValueError, match="expected activations"):
        run.sample(three, [Constraint("a", 0.5, 0.8)], starts(2, 3), 4)


def test_another_run_compiles_nothing():
    """Other starts, intervals, counts, step lengths, budgets, seeds that stay outside: one program
    each of the seeds and of the walk."""
    circle(5, 20)
    sizes = seeds.advance._cache_size(), sampler.advance._cache_size()
    for seed, high in ((0, 0.8), (1, 0.7), (2, 0.51)):
        for wanted in (20, 37, 300):
            for step, budget in ((0.1, 50), (0.3, 5)):
                start = np.random.default_rng(seed).uniform(-3, 3, (5, 1)).astype(np.float32)
                settings = Settings(step=step, seed_steps=budget, rate=0.2, inner_steps=7)
                asked = [Constraint("cos", 0.5, high)]
                run.sample(toys.CIRCLE, asked, start, wanted, settings)
    assert (seeds.advance._cache_size(), sampler.advance._cache_size()) == sizes


def test_fewer_seeds_than_asked_for_still_give_every_sample():
    """One start has no slope and stays outside; the others deliver."""
    net = networks(lambda c: jnp.maximum(c, 0.0), lambda x: x, lambda x: x[:, :1])
    start = np.asarray([[0.5, 0.2], [0.4, 0.9], [-5.0, -5.0]], np.float32)
    settings = Settings(seed_steps=200, optimiser=optax.adam(0.02))
    found = run.sample(net, [Constraint("a", 1.0, 2.0)], start, 30, settings)
    assert found.status == Status.OK and found.seeds_inside == 2
    assert set(found.chain.tolist()) == {0, 1} and len(found.images) == 30


def test_a_network_that_breaks_while_sampling_is_reported():
    """Fine at the seeds, NaN a step away."""
    net = networks(
        lambda c: jnp.where(jnp.abs(c) < 0.02, c, jnp.nan), lambda x: x, lambda x: x + 1.0
    )
    start = np.asarray([[0.01], [-0.01]], np.float32)
    settings = Settings(step=50.0)
    found = run.sample(net, [Constraint("a", 0.9, 1.1)], start, 30, settings)
    assert found.status == Status.NON_FINITE
    assert np.isfinite(found.images).all()


def test_a_chain_that_meets_nan_dies_alone_and_the_others_find_what_was_asked():
    """f is NaN where the second coordinate is below -0.7, which some of five chains come to."""
    net = networks(
        lambda c: jnp.concatenate([jnp.cos(c), jnp.sin(c)], -1),
        lambda x: x,
        lambda x: jnp.where(x[:, 1:] < -0.7, jnp.nan, x[:, :1]),
    )
    start = np.asarray([[-0.7], [-0.72], [-0.66], [-0.68], [0.8]], np.float32)
    settings = Settings(walk="refine", diversity=0.0, noise=0.05, step=0.05)
    asked = [Constraint("cos", 0.5, 0.8)]
    found = run.sample(net, asked, start, 60, settings, key=jax.random.key(3))
    assert found.status == Status.OK and len(found.codes) == 60
    assert np.isfinite(found.activations).all() and found.seeds_inside == 5
    assert 1 <= found.chains_lost < 5


def test_a_seed_that_meets_nan_is_left_behind():
    net = networks(lambda c: jnp.sqrt(c), lambda x: x, lambda x: x)
    start = np.asarray([[0.2], [-1.0], [0.5]], np.float32)
    found = run.sample(net, [Constraint("root", 0.6, 0.8)], start, 30)
    assert found.status == Status.OK and found.seeds_inside == 2
    assert set(found.chain.tolist()) == {0, 2} and np.isfinite(found.codes).all()


def problems(count):
    """Random neurons on the unit cube with intervals of known reach.

    Yields (kind, weights, offset, low, high); the neuron's range on the cube is closed form.
    """
    rng = np.random.default_rng(7)
    kinds = ("feasible", "empty", "point", "nan")
    for index in range(count):
        kind = kinds[index % 4]
        weights = rng.normal(size=4).astype(np.float32)
        offset = np.float32(rng.normal())
        lowest = np.minimum(weights, 0).sum() + offset
        highest = np.maximum(weights, 0).sum() + offset
        reach = highest - lowest
        if kind == "empty":
            low = highest + rng.uniform(0.02, 1.0) * reach
        elif kind == "point":  # only the best vertex of the cube reaches the interval
            low = highest
        else:
            low = lowest + rng.uniform(0.1, 0.8) * reach
        yield kind, weights, offset, float(low), float(low + rng.uniform(0.05, 0.5) * reach)


def _fragile(weights, offset, broken, logistic, images):
    drive = (images * weights).sum(-1, keepdims=True) + offset
    drive = jnp.where(broken, jnp.log(-1.0 - images[:, :1] ** 2), drive)
    return jnp.where(logistic, jax.nn.sigmoid(drive), drive)


def _image(images):
    return images


def test_a_thousand_toy_problems_end_with_the_right_status():
    """Linear and logistic; feasible, empty, one point wide, NaN-producing."""
    start = starts(3, 4)
    settings = Settings(seed_steps=400, optimiser=optax.adam(0.05), diversity=0.01, patience=3)
    expected = {
        "feasible": (Status.OK,),
        "empty": (Status.INFEASIBLE,),
        # From the vertex no step leads to another sample: the seeds are all there is.
        "point": (Status.PARTIAL,),
        "nan": (Status.NON_FINITE,),
    }
    wrong = []
    for index, (kind, weights, offset, low, high) in enumerate(problems(1000)):
        logistic = bool(index // 4 % 2)
        if logistic:
            low, high = (float(jax.nn.sigmoid(np.float32(z))) for z in (low, high))
        if kind == "point":
            vertex = (weights > 0).astype(np.float32)[None]
            low = float(_fragile(weights, offset, False, logistic, vertex)[0, 0])
        activate = jax.tree_util.Partial(
            _fragile, weights, offset, np.asarray(kind == "nan"), np.asarray(logistic)
        )
        net = networks(_image, _image, activate)
        found = run.sample(net, [Constraint(kind, low, high)], start, 9, settings, cube(4))
        ok = found.status in expected[kind]
        ok &= ((found.activations >= low) & (found.activations <= high)).all()
        ok &= len(found.images) == {"feasible": 9, "point": 3}.get(kind, 0)
        if kind == "point":
            ok &= (found.images == (weights > 0)).all()
        if not ok:
            wrong.append((index, kind, logistic, found.status.name, found.seeds_inside))
    assert not wrong, f"{len(wrong)} of 1000: {wrong[:8]}"


@pytest.mark.parametrize(
    ("changes", "steps"),
    [({}, 200), ({"inner_steps": 30}, 60), ({"rule": "paper"}, 400), ({"seed_steps": 80}, 80)],
)
def test_a_seed_that_never_comes_is_not_waited_for_to_the_end(changes, steps):
    """Two are inside from the first, the third has no slope to follow: after two updates of lambda
    and mu it is given up, and the samples asked for are found from the two."""
    net = networks(lambda c: jnp.maximum(c, 0.0), lambda x: x, lambda x: x)
    settings = Settings(distance="none", seed_steps=400, optimiser=optax.sgd(1e-2))
    settings = settings._replace(**changes)
    start = np.asarray([[1.5], [1.6], [-5.0]], np.float32)
    found = run.sample(net, [Constraint("x", 1.0, 2.0)], start, 20, settings)
    assert found.seeds_inside == 2 and found.seed_steps == steps
    assert found.status == Status.OK and set(found.chain) == {0, 1} and len(found.codes) == 20
