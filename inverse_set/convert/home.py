"""Where downloads and converted weights live on this machine."""

import os
import pathlib


def folder():
    """$INVERSE_SET_HOME, else inverse_set in $XDG_CACHE_HOME, else in ~/.cache."""
    chosen = os.environ.get("INVERSE_SET_HOME")
    if chosen:
        return pathlib.Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (pathlib.Path(cache) if cache else pathlib.Path.home() / ".cache") / "inverse_set"


def weights(name):
    """The converted weights of a network."""
    return folder() / "weights" / f"{name}.safetensors"


def downloads():
    """The folder of released files as downloaded."""
    return folder() / "downloads"
