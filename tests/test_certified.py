"""A model in, a certified sample out; and what the certificate turns down."""

import inspect

import numpy as np
import pytest

from inverse_set import certified, report, run
from inverse_set.models import bind
from inverse_set.settings import Settings
from inverse_set.types import Constraint, Status
from tests import tiny

ASKED = ["fc8/banana:p99:p99.9"]


@pytest.fixture(scope="module")
def found():
    return certified.sample(tiny.model(), ASKED, num_samples=12, num_seeds=4)


def test_every_picture_is_inside_by_an_independent_computation(found):
    (constraint,) = found.constraints
    (unit,) = [certified.units.parse_unit(tiny.model(), "fc8/banana")]
    again = bind.measure(tiny.model(), found.samples.images, [unit])[:, 0]
    assert found.status == Status.OK and len(again) == 12
    assert ((again >= constraint.low) & (again <= constraint.high)).all()


def test_what_is_optimised_is_what_is_saved(found):
    """JAX saw the same 8-bit pictures: its activations differ from float64 by rounding alone."""
    np.testing.assert_allclose(found.result.activations, found.samples.activations, atol=2e-4)


def test_codes_stay_natural(found):
    upper = tiny.model().codes.upper
    assert (found.samples.codes >= 0).all() and (found.samples.codes <= upper + 1e-6).all()


@pytest.mark.parametrize(
    ("rule", "natural_codes", "held"),
    [("two_sided", True, True), ("two_sided", False, False), ("paper", True, False)],
)
def test_codes_are_free_under_the_paper_rule(monkeypatch, rule, natural_codes, held):
    """The range of natural codes is what the run is given to hold them to."""
    model, signature = tiny.model(), inspect.signature(run.sample)

    class Given(Exception):
        pass

    def stop(*arguments):
        raise Given(signature.bind(*arguments).arguments["natural"])

    monkeypatch.setattr(run, "sample", stop)
    with pytest.raises(Given) as caught:
        settings = Settings(rule=rule)
        certified.sample(model, ASKED, 4, 2, 0, settings, model.starts[:2], natural_codes)
    (natural,) = caught.value.args
    if held:
        assert natural.lower is model.codes.lower and natural.upper is model.codes.upper
        assert natural.upper is not None
    else:
        assert natural.lower is None and natural.upper is None


def test_what_the_certificate_turns_down_is_dropped(monkeypatch):
    """Two of the pictures are measured outside: the run says partial and keeps the others."""
    real = bind.measure

    def disagree(model, images, chosen, **more):
        activations = real(model, images, chosen, **more)
        activations[[1, 5]] += 100
        return activations

    monkeypatch.setattr(bind, "measure", disagree)
    found = certified.sample(tiny.model(), ASKED, num_samples=12, num_seeds=4)
    assert found.status == Status.PARTIAL and found.dropped == 2
    assert len(found.samples.images) == len(found.samples.codes) == 10
    assert "10 of 12" in report.summary(found)["share inside"]
    for count, said in ((1, "one sample only"), (0, "no sample")):  # and no distance that is NaN
        few = found._replace(samples=type(found.samples)(*(c[:count] for c in found.samples)))
        summary = report.summary(few)
        assert said in summary["mean pairwise distance"]
        assert said in summary["nearest-neighbour distance"]


def test_a_stop_during_the_certificate_keeps_what_it_came_to_in_time(monkeypatch):
    """By a clock on which every batch takes longer than the grace: the first batch of two is read,
    one of its pictures is NaN to it, which is no inside and no interruption either."""
    real, batch = bind.measure, 2

    def slow(model, images, chosen, go_on):
        activations = real(model, images, chosen, batch, go_on)
        activations[0] = np.nan
        return activations

    monkeypatch.setattr(bind, "measure", slow)
    monkeypatch.setattr(certified, "GRACE", 0.0)
    seen = []

    def stop(phase, done, total, note):
        seen.append(phase)
        return phase == "certificate" and done == batch

    found = certified.sample(tiny.model(), ASKED, num_samples=12, num_seeds=4, progress=stop)
    assert found.status == Status.INTERRUPTED
    assert (len(found.samples.images), found.dropped, found.unread) == (1, 1, 10)
    assert "10 more were not reached" in report.summary(found)["share inside"]
    assert seen.index("compile") < seen.index("seeds")


def test_acceptance_by_rule():
    asked = [Constraint("a", 0.0, 1.0), Constraint("b", 5.0, 6.0)]
    rows = np.asarray([[0.5, 5.5], [0.5, 7.0], [-0.1, 5.5], [np.nan, 5.5]])
    assert certified.accepted(rows, asked, "two_sided").tolist() == [True, False, False, False]
    assert certified.accepted(rows, asked, "paper").tolist() == [True, True, False, False]


def test_the_settings_recorded_are_those_used(found):
    assert found.settings.guard == certified.GUARD
    assert found.settings.stop == "inside" and found.settings.step == 0.2
