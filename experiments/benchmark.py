"""What a gradient step costs, and whether the compiled loop makes it dearer.

    python -m experiments.benchmark --model=mini --num_seeds=10
    python -m experiments.benchmark --model=caffenet --weights=random:0 --repeats=5 --steps=2

On two idle cores it should print a loop tax of at most 1.05.  Each round times every case, so that
a machine that slows down slows them all; the table holds medians over the rounds.  For the
full-size networks the same step runs in eager PyTorch, if that is installed: with one forward pass
shared by E and f, and written naively.
"""

import importlib.util
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
from inverse_set.models import bind, cost, units

FLAGS = flags.FLAGS
SIZES = (512, 1024, 2048)  # of the square matrices whose product is the machine's peak

flags.DEFINE_string("model", "mini", "which model")
flags.DEFINE_string("weights", None, "random:SEED for untrained networks")
flags.DEFINE_string("unit", None, "LAYER/UNIT; default a class of the model")
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


def endless_problem(model, unit, codes):
    """The problem of a real run on the device; it accepts nothing, so the run never ends.

    The interval lies above what the codes reach, so that the constraint has a gradient.
    """
    networks = bind.networks(model, [unit])
    reached = float(observe.activations_of(networks, codes).max())
    target = constraints.two_sided([(reached + 1, reached + 2)])
    target = target._replace(accept_low=jnp.full_like(target.accept_low, jnp.inf))
    weight = jnp.float32(1 / (len(codes) ** 2 * (model.codes.code_square or len(codes[0]))))
    problem = seeds.Problem(networks, target, weight)
    if model.codes.upper is not None:
        problem = problem._replace(lower=model.codes.lower[None], upper=model.codes.upper[None])
    return jax.device_put(problem)


def slope(problem, codes):
    """The gradient of eq. 9 at lambda = 0, mu = 10."""
    networks = problem.networks
    features = jax.eval_shape(observe.observe, networks, codes).features.shape[1]
    nothing, multipliers = diversity.no_points(features), jnp.zeros((len(codes), 1))
    return lagrangian.gradient(
        networks,
        codes,
        duals=lambda _: (multipliers, 10.0),
        target=problem.target,
        past=nothing,
        weight=problem.weight,
        objective=("encoder", False),
        alive=jnp.ones(len(codes), bool),
    )[0]


def step(problem, codes):
    """One gradient step, so short that the codes stay where they are."""
    return codes - 1e-6 * slope(problem, codes)


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


def torch_cases(model, problem, codes, unit, flops):
    """The same gradient in eager PyTorch; empty where it or the full-size networks are missing."""
    if model.name != "caffenet" or unit.layer != "fc8" or not importlib.util.find_spec("torch"):
        print("no comparison: it needs PyTorch, the full-size networks and a unit of fc8")
        return []
    import torch

    from experiments import torch_step

    weights = torch_step.convert(model.generator.weights, model.encoder.weights)
    x = torch.tensor(np.asarray(codes))
    low, high = float(problem.target.lower[0, 0]), float(problem.target.upper[0, 0])
    mu = 10.0 / float(problem.target.scale[0, 0]) ** 2
    common = (weights, x, unit.index[0], low, high, mu, float(problem.weight))
    mine = np.asarray(jax.jit(slope)(problem, codes))
    theirs = torch_step.shared(*common).numpy()
    error = np.linalg.norm(mine - theirs) / np.linalg.norm(theirs)
    # In float32 some ReLUs, pools and roundings switch; in float64, unrounded, it is 1e-14.
    print(f"gradients: relative difference to PyTorch's {error:.1e}")
    return [
        Case("PyTorch shared", lambda: torch_step.shared(*common), 1, 1, 2 * flops),
        Case("PyTorch naive", lambda: torch_step.naive(*common), 1, 1, 2 * flops),
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
    for i, case in enumerate(cases[:shown]):
        if case.name.startswith("PyTorch"):
            ratio = np.median(times[:, i] / times[:, 1])
            print(f"{case.name} takes {ratio:.2f} times as long as our step in a loop")
    print(f"our step in a loop: {rates[1] / peak:.0%} of the matmul peak")


def main(_):
    model, count = inverse_set.load(FLAGS.model, None, FLAGS.weights), FLAGS.num_seeds
    name = FLAGS.unit or {"mini": "fc8/monarch", "caffenet": "fc8/volcano"}[model.name]
    unit = units.parse_unit(model, name)
    codes = jnp.asarray(bind.starting_codes(model, bind.default_start(model), count, 0))
    if model.codes.upper is None:
        codes = jnp.maximum(codes, 0)
    weights = " (untrained)" if model.untrained else ""
    print(f"{FLAGS.model}{weights}, K = {count}, {name}; jax {jax.__version__}, {jax.devices()}")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the run")
    problem = endless_problem(model, unit, codes)
    flops = count * cost.forward_flops(model, [unit])
    cases = step_cases(problem, codes, FLAGS.steps, flops)
    cases += torch_cases(model, problem, codes, unit, flops)
    cases += [matmul_case(size) for size in SIZES]
    for case in cases:
        jax.block_until_ready(case.run())  # compiles
    report(cases, np.asarray([[seconds(case) for case in cases] for _ in range(FLAGS.repeats)]))


if __name__ == "__main__":
    app.run(main)
