import pytest

from inverse_set.settings import Settings, check, resolve


@pytest.mark.parametrize(
    "change",
    [
        {"inner_steps": 0},
        {"micro": 0},
        {"margin": 0.5},
        {"guard": -0.1},
        {"step": 0.0},
        {"step": float("nan")},
        {"rate": float("inf")},
        {"growth": 0.5},
    ],
)
def test_settings_out_of_range(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        check(resolve(Settings(**change)))


def test_what_the_rule_and_the_method_decide():
    """Only what was left open is filled in."""
    assert resolve(Settings()).stop == "inside"
    assert resolve(Settings(method="joint")).stop == "plateau"
    assert resolve(Settings(method="joint", stop="inside")).stop == "inside"
    paper, ours = resolve(Settings(rule="paper")), resolve(Settings())
    assert paper.step < ours.step and paper.penalty_cap > ours.penalty_cap
    assert resolve(Settings(rule="paper", step=0.5)).step == 0.5


def test_the_defaults_are_allowed():
    for rule in ("two_sided", "paper"):
        for method in ("incremental", "joint"):
            check(resolve(Settings(rule=rule, method=method)))
