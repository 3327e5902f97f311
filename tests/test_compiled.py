"""What XLA:CPU compiles the bundled model's loops to: no input gradient in the slow layout `01oi`.

See `models/layers.py`; `tests/models/test_layers.py` has the same check layer by layer.
"""

import re

import jax
import jax.numpy as jnp
import optax
import pytest

import inverse_set
from inverse_set import constraints, observe, refine, sampler, seeds
from inverse_set.models import bind, layers, units

DESCENT = seeds.Descent(optax.adam(0.1))
JOINT = seeds.Descent(optax.adam(0.1), micro_batch=2)


def problem_and_codes(count):
    model = inverse_set.load("mini")
    unit, asked = units.parse_constraint(model, "fc8/0:p50:p99")
    target = constraints.two_sided([(asked.low, asked.high)])
    problem = seeds.Problem(bind.networks(model, [unit]), target, jnp.float32(0.01))
    return problem, jnp.asarray(model.starts[:count])


def seeds_lowered(advance, descent, count):
    problem, codes = problem_and_codes(count)
    return advance.lower(seeds.init(problem, descent, codes), problem, descent, 5)


def walk_lowered(walk, count):
    problem, codes = problem_and_codes(count)

    def start(codes):
        observation = observe.observe(problem.networks, codes)
        multipliers, inside = jnp.zeros((count, 1)), jnp.ones(count, bool)
        length = penalty = jnp.float32(10)
        return sampler.init(
            walk, codes, observation, multipliers, penalty, inside, length, jax.random.key(0)
        )

    return sampler.advance.lower(jax.eval_shape(start, codes), problem, walk, 5, 5)


def convolutions(lowered):
    """The layouts of all convolutions in the optimised HLO of a loop.

    The option leaves the HLO as it is and only makes the machine code quick to write.
    """
    text = lowered.compile({"xla_backend_optimization_level": 0}).as_text()
    assert "while(" in text
    return set(re.findall(r"convolution\(.*dim_labels=(\w+->\w+)", text))


@pytest.fixture
def cpu():
    with jax.default_device(jax.devices("cpu")[0]):
        yield


@pytest.mark.parametrize(
    "lower",
    [
        pytest.param(lambda: seeds_lowered(seeds.advance, DESCENT, 2), id="seeds"),
        pytest.param(
            lambda: seeds_lowered(seeds.advance, JOINT, 5),
            id="joint",
        ),
        pytest.param(lambda: walk_lowered(sampler.Walk(), 2), id="walk"),
        pytest.param(
            lambda: walk_lowered(sampler.Walk(refinement=refine.Refinement(encodings=1)), 2),
            id="refine",
        ),
    ],
)
def test_the_loops_of_the_bundled_model_have_no_slow_gradient(lower, cpu):
    assert convolutions(lower()) == {"b01f_01io->b01f"}


def test_the_check_sees_what_plain_autodiff_writes(cpu, monkeypatch):
    def plain(x, kernel, padding, groups):
        return layers._plain(x, kernel, ((padding, padding), (padding, padding)))

    def advance(*arguments):  # a function of its own: that of the library stays out of JAX's cache
        return seeds.advance.__wrapped__(*arguments)

    monkeypatch.setattr(layers, "_conv2d", plain)
    lowered = seeds_lowered(jax.jit(advance), DESCENT, 2)
    assert "b01f_01oi->b01f" in convolutions(lowered)
