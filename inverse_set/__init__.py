"""Samples the inverse set of a neuron: which inputs drive it to this level?

The names are imported when they are first used: the command answers signals before JAX is there.
"""

import importlib

_HOMES = {
    "Constraint": "types",
    "Natural": "settings",
    "Networks": "types",
    "Result": "run",
    "Settings": "settings",
    "Status": "types",
    "load": "models.zoo",
    "networks": "types",
    "sample": "certified",
    "sample_inverse_set": "run",
}
__all__ = [
    "Constraint",
    "Natural",
    "Networks",
    "Result",
    "Settings",
    "Status",
    "load",
    "networks",
    "sample",
    "sample_inverse_set",
]


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    return getattr(module, "sample" if name == "sample_inverse_set" else name)


def __dir__():
    return sorted({*globals(), *__all__})
