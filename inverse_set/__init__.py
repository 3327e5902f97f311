"""Samples the inverse set of a neuron: which inputs drive it to this level?

The names are imported when they are first used: the command answers signals before JAX is there.
"""

import importlib

_HOMES = {
    "Constraint": "types",
    "Model": "models.base",
    "Natural": "settings",
    "Networks": "types",
    "Result": "run",
    "Settings": "settings",
    "Status": "types",
    "as_is": "models.base",
    "eight_bits": "models.base",
    "from_functions": "models.adapt",
    "from_linen": "models.adapt",
    "from_nnx": "models.adapt",
    "kernel": "kernels",
    "load": "models.zoo",
    "measure": "models.measure",
    "networks": "types",
    "sample": "certified",
    "sample_inverse_set": "run",
}
_ELSEWHERE = {"sample_inverse_set": "sample"}  # names that are others where they are defined
__all__ = [
    "Constraint",
    "Model",
    "Natural",
    "Networks",
    "Result",
    "Settings",
    "Status",
    "as_is",
    "eight_bits",
    "from_functions",
    "from_linen",
    "from_nnx",
    "kernel",
    "load",
    "measure",
    "networks",
    "sample",
    "sample_inverse_set",
]


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    return getattr(module, _ELSEWHERE.get(name, name))


def __dir__():
    return sorted({*globals(), *__all__})
