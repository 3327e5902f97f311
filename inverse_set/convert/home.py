"""Where downloads and converted weights live on this machine."""

import os
import pathlib

from inverse_set.errors import UserError


def folder():
    """$INVERSE_SET_HOME, else inverse_set in $XDG_CACHE_HOME, else in ~/.cache."""
    chosen = os.environ.get("INVERSE_SET_HOME")
    cache = os.environ.get("XDG_CACHE_HOME")
    try:
        if chosen:
            return pathlib.Path(chosen).expanduser()
        return (pathlib.Path(cache) if cache else pathlib.Path.home() / ".cache") / "inverse_set"
    except RuntimeError as error:  # no such user, or no home at all
        raise UserError(str(error), "set INVERSE_SET_HOME to a folder") from None


def weights(name):
    """The converted weights of a network."""
    return folder() / "weights" / f"{name}.safetensors"


def downloads():
    """The folder of released files as downloaded."""
    return folder() / "downloads"
