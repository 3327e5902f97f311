"""What a gradient step costs, and whether the compiled loop makes it dearer.

    python -m experiments.benchmark --model=mini --num_seeds=10

On two idle cores it should print a loop tax of at most 1.05.  Each round times every case, so that
a machine that slows down slows them all; the table holds medians over the rounds.
"""

import math
import os
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

import inverse_set
from inverse_set import constraints, diversity, lagrangian, observe, seeds
from inverse_set.models import units, zoo

FLAGS = flags.FLAGS
SIZES = (512, 1024, 2048)  # of the square matrices whose product is the machine's peak

flags.DEFINE_string("model", "mini", "which model")
flags.DEFINE_string("constraint", "fc8/monarch:p99:p99.9", "LAYER/UNIT:LOW:HIGH")
flags.DEFINE_integer("num_seeds", 10, "codes a step (K)", lower_bound=1)
flags.DEFINE_integer("repeats", 9, "rounds", lower_bound=1)
flags.DEFINE_integer("steps", 10, "steps a case and round", lower_bound=1)


class Case(NamedTuple):
    """`run()` takes `steps` steps of `flops` useful FLOPs; a round calls it `calls` times."""

    name: str
    run: Any
    calls: int
    steps: int
    flops: float


def forward_flops(model, layer):
    """Useful FLOPs of one picture: the generator, then the classifier up to E and to `layer`.

    Two for every entry of a kernel and position it is laid at: outputs, of a deconvolution inputs.
    """
    plan, side = model.generator_plan, model.generator_plan.spatial
    total = sum(model.generator_weights[name]["kernel"].size for name, _ in plan.dense)
    for deconv in plan.deconvs:
        total += model.generator_weights[deconv.name]["kernel"].size * side**2
        side = (side - 1) * deconv.stride + deconv.kernel - 2 * deconv.padding
    names = list(model.shapes)
    for name in names[: max(names.index("fc6"), names.index(layer)) + 1]:
        if name in model.weights:
            total += model.weights[name]["kernel"].size * math.prod(model.shapes[name][:-1])
    return 2 * total


def endless_problem(model, unit, asked, count):
    """The problem of a real run on the device; it accepts nothing, so the run never ends."""
    target = constraints.two_sided([(asked.low, asked.high)])
    target = target._replace(accept_low=jnp.full_like(target.accept_low, jnp.inf))
    weight = jnp.float32(1 / (count**2 * model.codes.code_square))
    problem = seeds.Problem(zoo.networks(model, [unit]), target, weight)
    if model.codes.upper is not None:
        problem = problem._replace(lower=model.codes.lower[None], upper=model.codes.upper[None])
    return jax.device_put(problem)


def step(problem, codes):
    """One gradient step, so short that the codes stay where they are."""
    networks, target, weight = problem.networks, problem.target, problem.weight
    features = jax.eval_shape(observe.observe, networks, codes).features.shape[1]
    nothing, multipliers = diversity.no_points(features), jnp.zeros((len(codes), 1))
    slope, _ = lagrangian.gradient(
        networks, codes, multipliers, 10.0, target, nothing, weight, "encoder"
    )
    return codes - 1e-6 * slope


@jax.jit
def loop(problem, codes, steps):
    """The same step in a loop whose length the compiler does not know."""
    return jax.lax.fori_loop(0, steps, lambda _, codes: step(problem, codes), codes)


def step_cases(problem, codes, steps, flops):
    """flops: of the forward pass of all codes; the gradient to them costs as much again."""
    alone, forward = jax.jit(step), jax.jit(observe.observe)
    descent = seeds.Descent(optax.adam(0.05), max_steps=2**30)
    state, trips = seeds.init(problem, descent, codes), jnp.int32(steps)

    def advance():
        return seeds.advance(state, problem, descent, trips)

    if (taken := int(advance().step)) != steps:
        raise RuntimeError(f"expected a run of {steps} steps, it ended after {taken}")
    return [
        Case("step alone", lambda: alone(problem, codes), steps, 1, 2 * flops),
        Case("step in a loop", lambda: loop(problem, codes, trips), 1, steps, 2 * flops),
        Case("seeds.advance", advance, 1, steps, 2 * flops),
        Case("forward pass", lambda: forward(problem.networks, codes), steps, 1, flops),
    ]


def matmul_case(size):
    x, multiply = jnp.ones((size, size)), jax.jit(jnp.matmul)
    return Case(f"matmul {size}", lambda: multiply(x, x), (2048 // size) ** 2, 1, 2 * size**3)


def seconds(case):
    """Wall time of one step."""
    start = time.perf_counter()
    for _ in range(case.calls):
        jax.block_until_ready(case.run())
    return (time.perf_counter() - start) / (case.calls * case.steps)


def report(cases, times):
    """Prints the table.  times: `[repeats, cases]`, in seconds; the last cases are the matmuls."""
    medians, over = np.median(times, axis=0), times / times[:, :1]
    rates = np.asarray([case.flops for case in cases]) / medians / 1e9
    peak, shown = rates[-len(SIZES) :].max(), len(cases) - len(SIZES)
    print(f"{'':<16}{'ms':>10}{'GFLOP':>10}{'GFLOP/s':>10}{'of peak':>10}{'over alone':>12}")
    for i, (case, rate) in enumerate(zip(cases, rates, strict=True)):
        row = f"{case.name:<16}{1e3 * medians[i]:>10.2f}{case.flops / 1e9:>10.3f}{rate:>10.1f}"
        print(f"{row}{rate / peak:>10.0%}" + f"{np.median(over[:, i]):>12.3f}" * (i < shown))
    low, tax, high = np.quantile(over[:, 1], [0.25, 0.5, 0.75])
    print(f"loop tax {tax:.3f} (quartiles {low:.3f} to {high:.3f}), target 1.05")


def main(_):
    model, count = inverse_set.load(FLAGS.model), FLAGS.num_seeds
    unit, asked = units.parse_constraint(model, FLAGS.constraint)
    codes = jnp.asarray(zoo.starting_codes(model, "natural", count, 0))
    print(f"{FLAGS.model}, K = {count}, {FLAGS.constraint}; jax {jax.__version__}, {jax.devices()}")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the run")
    problem, flops = endless_problem(model, unit, asked, count), forward_flops(model, unit.layer)
    cases = step_cases(problem, codes, FLAGS.steps, count * flops)
    cases += [matmul_case(size) for size in SIZES]
    for case in cases:
        jax.block_until_ready(case.run())  # compiles
    report(cases, np.asarray([[seconds(case) for case in cases] for _ in range(FLAGS.repeats)]))


if __name__ == "__main__":
    app.run(main)
