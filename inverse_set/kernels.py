"""The algorithms as a pair of pure functions, `init` and `step`, for one's own loop.

They can be used inside `jax.jit`, `jax.lax.scan` and `jax.vmap`; `run.sample` is the same with a
loop, progress and an end.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from inverse_set import constraints, natural_units, observe, sampler, seeds
from inverse_set.settings import Natural, Settings, check, resolve


class Kernel(NamedTuple):
    """A problem and how it is sampled; a pytree, every number of it an argument.

    problem: `seeds.Problem`.  descent: `seeds.Descent`.  walk: `sampler.Walk`.
    length: beta, a scalar in units of the codes.

        kernel = inverse_set.kernel(networks, constraints, start)
        state = kernel.init(kernel.seeds(start), jax.random.key(0))
        state, found = jax.lax.scan(lambda state, _: kernel.step(state), state, length=50)
        x = found.observation.images[found.accepted]  # outside of compiled code
    """

    problem: Any
    descent: Any
    walk: Any
    length: Any

    def seeds(self, codes):
        """`SeedState` of codes `[K, D]` after the descent (sec. 3.4); the seeds are its `best`."""
        return seeds.advance(
            seeds.init(self.problem, self.descent, codes), self.problem, self.descent, seeds.NEVER
        )

    def init(self, state, key):
        """`WalkState` at the seeds of a `SeedState`; those that are outside do not walk.

        key: of `jax.random.key`; another one is another sample.
        """
        codes = state.best.codes
        micro = self.walk.micro_batch
        observation = natural_units.observe_jitted(self.problem.networks, codes, micro)
        inside = constraints.inside(observation.activations, self.problem.target)
        inside &= observe.finite(observation)
        duals = state.multipliers, state.penalty
        return sampler.init(self.walk, codes, observation, *duals, inside, self.length, key)

    def step(self, state):
        """(`WalkState`, `Samples`) after one step of eq. 11: K new samples, where `accepted`."""
        return _step(state, self.problem, self.walk)


_step = jax.jit(sampler.step)


def kernel(networks, asked, start, settings=None, natural=None):
    """`Kernel` of three pure functions and what is asked of them.

    networks: `Networks`.  asked: a `Constraint` per activation.
    start: `[K, D]` codes such as those that it will start from; distances that `natural` does not
        give are measured on them.
    settings: `Settings`.  natural: `Natural`.
    Raises ValueError for settings or shapes that cannot work.
    """
    settings = resolve(Settings() if settings is None else settings)
    natural = Natural() if natural is None else natural
    check(settings)
    start = jnp.asarray(start)
    natural_units.check(networks, asked, natural, start)
    problem, descent, walk, beta = natural_units.plan(networks, asked, start, settings, natural)
    return Kernel(problem, descent, walk, jax.device_put(jnp.asarray(beta, start.dtype)))
