"""Networks of Flax, and plain functions, as what a `Model` asks: inputs -> {layer: activations}."""

import contextlib
import functools
from unittest import mock

import jax

from inverse_set.errors import UserError
from inverse_set.types import as_partial

OUTPUT = "output"  # the name of what the whole network returns


def from_linen(module, variables, **options):
    """The activations of a Flax linen module, by the names of its submodules.

    module: `flax.linen.Module`.  variables: of `init`, `{"params": ...}`.
    options: further arguments of its `__call__`, as `train=False`.
    Returns a Partial, inputs `[K, ...]` -> {layer: activations `[K, ...]`}: of each submodule what
    it returns ("Conv_0", "Block_1.Dense_0"), what the module sows into "intermediates", and the
    whole module's "output".  A later call of the same submodule adds "#2" to its name.

        layers = from_linen(CNN(), variables)
    """

    def read(variables, images):
        _, state = module.apply(
            variables, images, capture_intermediates=True, mutable=["intermediates"], **options
        )
        return dict(_named(state["intermediates"], ()))

    return jax.tree_util.Partial(read, variables)


def _named(tree, path):
    """(name, array) of captured intermediates; a submodule's own output bears its name."""
    for name, value in tree.items():
        here = path if name == "__call__" else (*path, name)
        if hasattr(value, "items"):
            yield from _named(value, here)
            continue
        for number, array in enumerate(value, 1):
            if isinstance(array, jax.Array):
                yield ".".join(here or (OUTPUT,)) + (f"#{number}" if number > 1 else ""), array


def from_nnx(module, **options):
    """The activations of a Flax nnx module, by the attributes of its submodules.

    module: `flax.nnx.Module`; what it holds now is taken, later changes are not seen.
    options: further arguments of its `__call__`.
    Returns a Partial as `from_linen` does: names are paths ("conv1", "blocks.0.linear").

        layers = from_nnx(cnn)
    """
    from flax import nnx

    graph, state = nnx.split(module)

    def read(state, images):
        whole = nnx.merge(graph, state)
        names = {}
        for path, part in nnx.iter_modules(whole):
            names.setdefault(id(part), ".".join(map(str, path)) or OUTPUT)
        found = {}
        with contextlib.ExitStack() as patches:
            for kind in {type(part) for _, part in nnx.iter_modules(whole)}:
                if "__call__" in vars(kind):
                    recorded = _recorded(vars(kind)["__call__"], names, found)
                    patches.enter_context(mock.patch.object(kind, "__call__", recorded))
            whole(images, **options)
        return found

    return jax.tree_util.Partial(read, state)


def _recorded(call, names, found):
    """`__call__`, after which what it returned is found under the module's name."""

    @functools.wraps(call)
    def run(self, *arguments, **options):
        value = call(self, *arguments, **options)
        name = names.get(id(self))
        if name is not None and isinstance(value, jax.Array):
            number = sum(key == name or key.startswith(f"{name}#") for key in found) + 1
            found[name if number == 1 else f"{name}#{number}"] = value
        return value

    return run


def from_functions(functions):
    """The activations of plain functions, one per layer.

    functions: {layer: function of the inputs `[K, ...]` -> activations `[K, ...]`}; bind weights
        with `functools.partial` or `jax.tree_util.Partial`.
    Returns a Partial as `from_linen` does.  A function that returns the dict itself needs none.

        layers = from_functions({"logits": jax.vmap(equinox_network)})
    """
    if not functions:
        raise UserError("there are no functions of layers", "give {layer: function}")
    names = tuple(functions)

    def read(parts, images):
        return {name: part(images) for name, part in zip(names, parts, strict=True)}

    return jax.tree_util.Partial(read, tuple(as_partial(functions[name]) for name in names))
