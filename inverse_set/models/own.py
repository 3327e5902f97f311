"""A model of one's own, by where the function stands that returns it."""

import importlib
import importlib.util
import pathlib
import sys

from inverse_set.errors import UserError
from inverse_set.models.base import Model

FORM = "write FILE.py:NAME or package.module:NAME, NAME a function that returns a Model"


def load_own(text):
    """The `Model` that `FILE.py:NAME` or `package.module:NAME` returns; UserError if it cannot.

    The file's code is run, with its folder on the path, as `python FILE.py` would run it.
    """
    place, _, name = text.rpartition(":")
    if not place or not name.isidentifier():
        raise UserError(f"{text!r} is not where a model is", FORM)
    module = _module(place, text)
    if not hasattr(module, name):
        raise UserError(f"{place} has no {name!r}", FORM)
    model = getattr(module, name)
    if not isinstance(model, Model):
        if not callable(model):
            raise UserError(f"{text} is a {type(model).__name__}, not a Model", FORM)
        model = _ran(model, text)
    if not isinstance(model, Model):
        raise UserError(f"{text} returns a {type(model).__name__}, not a Model", FORM)
    return model


def _module(place, text):
    if not place.endswith(".py"):
        folder = str(pathlib.Path.cwd())
        if folder not in sys.path:
            sys.path.insert(0, folder)
        return _ran(lambda: importlib.import_module(place), text)
    path = pathlib.Path(place).expanduser().resolve()
    if not path.is_file():
        raise UserError(f"{place}: no such file", FORM)
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # its classes can be pickled, its dataclasses made
    _ran(lambda: spec.loader.exec_module(module), text)
    return module


def _ran(function, text):
    """What a user's code returns; what it raises as an error that names it."""
    try:
        return function()
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        said = " ".join(str(error).split())[:300]
        raise UserError(
            f"{text}: {type(error).__name__}: {said}", "--debug shows where it was raised"
        ) from error
