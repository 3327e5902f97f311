"""What every training stage shares: steps on the device, a schedule, a time limit, checkpoints.

On an accelerator `log_every` steps are one program, which draws its own pictures, so that the host
waits for nothing in between; on a CPU each step is one, since XLA:CPU is slow inside loops where
gradients of kernels are asked for.
"""

import functools
import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from experiments import checkpoints
from inverse_set.models.classifier import fold_batch_norm

STOPPED = 75  # exit code of a stage that its time limit ended; run it again to go on
RESERVE = 20.0  # seconds kept for the last checkpoint and the last look at the valid pictures
SHARE = 0.9  # of the time left that a measured number of steps is meant to fill
TRIED = 40  # steps timed to measure it

clock = time.monotonic


def draw(key, step, size, batch):
    """Numbers `[batch]` of the pictures of a step: every picture once a pass, in a new order."""
    if batch > size:
        raise ValueError(f"a batch of {batch} pictures is more than there are: {size}")
    passes, place = jnp.divmod(step, size // batch)
    order = jnp.argsort(jax.random.bits(jax.random.fold_in(key, passes), (size,)))
    return jax.lax.dynamic_slice(order, (place * batch,), (batch,))


def rate(step, total, peak, warm):
    """Learning rate: linear to `peak` in the share `warm` of all `total` steps, a cosine to 0."""
    done = (step + 0.5) / total
    after = jnp.clip((done - warm) / (1 - warm), 0.0, 1.0)
    return peak * jnp.minimum(done / warm, 0.5 + 0.5 * jnp.cos(jnp.pi * after))


def averaged(average, new, step, total):
    """Exponential average over a twelfth of the schedule, so that the decay of the rate fills it.

    step: before the update; the first steps count more, or the initial weights would.
    """
    keep = jnp.clip(1 - 12 / total, 0.9, 0.9995)
    keep = jnp.minimum(keep, step / (step + 10.0))
    return jax.tree.map(lambda a, v: keep * a + (1 - keep) * v, average, new)


def cast(tree, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


def on_accelerator():
    return jax.default_backend() != "cpu"


def stepper(update, looped):
    """(state, total, data, count) -> (state, mean losses) after `count` steps of `update`."""
    if not looped:
        one = jax.jit(update, donate_argnums=0)

        def advance(state, total, data, count):
            losses = []
            for _ in range(count):
                state, loss = one(state, total, data)
                losses.append(loss)
            return state, jax.tree.map(lambda *values: sum(values) / count, *losses)

        return advance

    @functools.partial(jax.jit, donate_argnums=0)
    def advance(state, total, data, count):
        zeros = jax.eval_shape(update, state, total, data)[1]
        zeros = jax.tree.map(lambda loss: jnp.zeros(loss.shape, loss.dtype), zeros)

        def body(_, carried):
            state, sums = carried
            state, losses = update(state, total, data)
            return state, jax.tree.map(jnp.add, sums, losses)

        state, sums = jax.lax.fori_loop(0, count, body, (state, zeros))
        return state, jax.tree.map(lambda total: total / count, sums)

    return advance


def steps_of(name, schedule, out):
    """Steps of a stage's schedule that was begun."""
    if schedule["steps"] is not None:
        return schedule["steps"]
    return json.loads((out / f"{name}.json").read_text())["steps"]


def planned_steps(name, schedule, advance, state, data, out, rehearse):
    """Steps of the whole schedule: those asked for, or as many of the default as time allows.

    What was measured is written to `out/NAME.json`, so that a rerun has the same schedule.
    rehearse: () -> None, compiles what looks at checkpoints; what fails there fails at once.
    """
    path = out / f"{name}.json"
    if schedule["steps"] is not None:
        return schedule["steps"]
    if path.exists():
        return json.loads(path.read_text())["steps"]
    steps = schedule["default_steps"]
    if schedule["deadline"] is not None:
        rehearse()
        count = TRIED if schedule["looped"] else 2
        for _ in range(2):  # the first time compiles
            copy = jax.tree.map(jnp.copy, state)
            start = clock()
            jax.block_until_ready(advance(copy, jnp.float32(steps), data, count))
        one = (clock() - start) / count
        left = schedule["deadline"] - clock() - RESERVE
        if left < RESERVE:
            sys.exit(f"{name}: --minutes leaves no time to train")
        steps = int(np.clip(SHARE * left / one, 1, steps))
        print(
            f"{1000 * one:.1f} ms a step: {steps} of {schedule['default_steps']} steps fit",
            flush=True,
        )
    path.write_text(json.dumps({"steps": steps}) + "\n")
    return steps


def run(name, schedule, out, initial, update, data, report):
    """Takes a stage from its newest checkpoint to its end; returns the state.

    initial: () -> state, which has an int32 `step`.  data: whatever `update` reads, on the device.
    update: (state, total, data) -> (state, {name: scalar loss}); total: float32, all steps.
    report: (state, step, log) -> None, called where a checkpoint was written; writes
    `out/NAME.safetensors` (`save_folded`).
    Leaves with exit code `STOPPED`, a checkpoint written, where the next steps might outlast
    `schedule["deadline"]` (seconds of `clock`, or None); with 1 where a loss is not finite.
    """
    path = out / f"{name}.msgpack"
    state = jax.device_put(checkpoints.restore(path, jax.jit(initial)()))
    log = checkpoints.Log(out / f"{name}.log")
    advance = stepper(update, schedule["looped"])
    rehearse = functools.partial(report, state, 0, log)
    steps = planned_steps(name, schedule, advance, state, data, out, rehearse)
    step, longest, seen, spent = int(state.step), 0.0, 0, 0.0
    deadline = schedule["deadline"]

    def keep():
        checkpoints.save(path, state)
        report(state, step, log)

    if step >= steps and not (out / f"{name}.safetensors").exists():  # killed just before it
        report(state, step, log)
    while step < steps:
        if deadline is not None and clock() + 2 * longest + RESERVE > deadline:
            keep()
            print(
                f"{name}: out of time at step {step} of {steps}; run it again to go on", flush=True
            )
            sys.exit(STOPPED)
        start = clock()
        count = min(_until(step, schedule["log_every"]), _until(step, schedule["checkpoint_every"]))
        count = min(count if schedule["looped"] else 1, steps - step)
        state, losses = advance(state, jnp.float32(steps), data, count)
        losses = {key: float(loss) for key, loss in losses.items()}  # waits for the device
        if not np.isfinite(list(losses.values())).all():
            sys.exit(f"{name}: not finite after step {step + count}: {losses}; see {path}")
        took, first, step = clock() - start, seen == 0, step + count
        seen += count
        if not first:  # the first steps compile
            longest, spent = max(longest, took), spent + took / count
        if step % schedule["log_every"] == 0:
            log(step, **losses)
            if not first:
                _progress(schedule["batch"], count / took, step, steps)
        if step % schedule["checkpoint_every"] == 0 or step == steps:
            keep()
    return state


def _until(step, every):
    return every - step % every


def _progress(batch, speed, step, steps):
    left = (steps - step) / speed / 60
    print(f"    {batch * speed:.0f} pictures/s, {left:.1f} min to the end", flush=True)


def half(weights):
    """Rounded to fp16, computed in float32."""
    return jnp.asarray(weights, jnp.float16).astype(jnp.float32)


def flat(tree):
    """{layer: {leaf: array}} -> {"layer/leaf": fp16 array}, as weight files have it."""
    return {
        f"{layer}/{leaf}": np.asarray(value, np.float16)
        for layer, leaves in tree.items()
        for leaf, value in leaves.items()
    }


def save_folded(path, variables):
    """The averaged variables as a small file of fp16 weights, all that later stages read."""
    temporary = path.with_suffix(".part")
    safetensors.numpy.save_file(flat(jax.device_get(fold_batch_norm(variables))), temporary)
    temporary.replace(path)


def load_folded(path, stage):
    """`{layer: {kernel, bias}}` in float32, as `save_folded` wrote it."""
    if not path.exists():
        raise SystemExit(f"{path} is missing: run --stage={stage} first")
    tree = {}
    for name, value in safetensors.numpy.load_file(path).items():
        layer, leaf = name.split("/")
        tree.setdefault(layer, {})[leaf] = jnp.asarray(value, jnp.float32)
    return tree
