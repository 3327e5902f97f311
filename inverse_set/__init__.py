"""Samples the inverse set of a neuron: which inputs drive it to this level?"""

from inverse_set.certified import sample
from inverse_set.models.zoo import load
from inverse_set.run import Result
from inverse_set.run import sample as sample_inverse_set
from inverse_set.settings import Natural, Settings
from inverse_set.types import Constraint, Networks, Status, networks

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
