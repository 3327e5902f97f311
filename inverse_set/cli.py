"""The command `inverse-set`: sample, units, verify, models, convert, fetch.

Exit codes: 0 done; 1 internal error; 2 wrong usage; 3 infeasible or partial; 4 missing or broken
weights; 75 interrupted, what was found is kept.
"""

import difflib
import importlib.metadata
import os
import signal
import sys
import traceback

from absl import flags

from inverse_set import errors, streams
from inverse_set.commands import flags as define
from inverse_set.errors import UserError

PATHS = ("out", "images", "mean")  # flags that are paths
USAGE = """usage: inverse-set COMMAND [--flag=value ...]

  sample   sample the inverse set of one or more neurons into a folder
             inverse-set sample --constraint=fc8/monarch:p95:p99.9 --out=monarchs
  units    list a model's units, their names and natural activations
             inverse-set units --model=mini --layer=fc8
  verify   recompute the activation of every saved picture
             inverse-set verify monarchs
  models   list the models, what each needs and whether its weights are here
  convert  turn a released weight file into one that the models load
             inverse-set convert bvlc_reference_caffenet.caffemodel --network=caffenet
  fetch    download released weights, check and convert them
             inverse-set fetch caffenet

`inverse-set COMMAND --help` lists the flags of a command, `inverse-set --version` the version.
"""


def _load(values):
    from inverse_set.models import own, zoo

    if ":" in values.model:
        for flag in ("subject", "weights"):
            if values[flag].value is not None:
                raise UserError(f"--{flag} is of no use to {values.model}", f"leave --{flag} out")
        return own.load_own(values.model)
    model = zoo.load(values.model, values.subject, values.weights)
    if model.untrained:
        print(f"note: the weights are random ({model.untrained}), not trained", file=sys.stderr)
    return model


def _sample(values, arguments):
    from inverse_set.commands import sample

    _no_more(arguments)
    return sample.main(values, _load)


def _convert(values, arguments):
    from inverse_set.commands import convert

    return convert.main(values, arguments)


def _fetch(values, arguments):
    from inverse_set.commands import fetch

    return fetch.main(values, arguments)


def _units(values, arguments):
    from inverse_set.commands import lists

    _no_more(arguments)
    return lists.units(_load(values), values.layer)


def _verify(values, arguments):
    from inverse_set.commands import verify

    if len(arguments) != 1:
        raise UserError("verify takes one folder", "write `inverse-set verify DIR`")
    return verify.main(arguments[0], values.model)


def _models(values, arguments):
    from inverse_set.commands import lists

    _no_more(arguments)
    return lists.models()


def _no_more(arguments):
    if arguments:
        raise UserError(f"unexpected argument {arguments[0]!r}", "flags are written --name=value")


COMMANDS = {
    "sample": (define.sample, _sample),
    "convert": (define.convert, _convert),
    "fetch": (define.fetch, _fetch),
    "units": (define.units, _units),
    "verify": (define.verify, _verify),
    "models": (lambda values: None, _models),
}


def _parse(name, arguments):
    """The command's flags and its other arguments; UserError instead of absl's usage dump."""
    values = flags.FlagValues()
    define.common(values)
    COMMANDS[name][0](values)
    try:
        rest = values([name, *arguments])[1:]
    except flags.UnrecognizedFlagError as error:
        near = difflib.get_close_matches(error.flagname, list(values), 1)
        hint = f"did you mean --{near[0]}? " if near else ""
        raise UserError(
            f"{name} has no flag --{error.flagname}",
            f"{hint}`inverse-set {name} --help` lists the flags",
        ) from None
    except (flags.Error, ValueError) as error:
        raise UserError(
            " ".join(str(error).split()), f"`inverse-set {name} --help` lists the flags"
        ) from None
    for flag in set(PATHS) & set(values):  # of --out=~/x no shell has replaced the ~
        if values[flag].value:
            values[flag].value = os.path.expanduser(values[flag].value)
    return values, [os.path.expanduser(argument) for argument in rest]


def run(arguments):
    """Runs one command line (without the program's name); returns its exit code."""
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(USAGE, end="")
        return 0 if arguments else errors.USAGE
    if arguments == ["--version"]:
        print(importlib.metadata.version("inverse-set"))
        return 0
    debug = "--debug" in arguments
    try:
        name = arguments[0]
        if name not in COMMANDS:
            raise UserError(f"unknown command {name!r}", f"the commands are {', '.join(COMMANDS)}")
        given = ["--help" if argument == "-h" else argument for argument in arguments[1:]]
        values, rest = _parse(name, given)
        if values.help:
            print(f"flags of inverse-set {name}:{values.get_help()}")
            return 0
        return COMMANDS[name][1](values, rest)
    except UserError as error:
        if debug:
            _trace()
        _complain(error.what, error.remedy)
        return error.code
    except KeyboardInterrupt:
        _complain("interrupted", "run the same command again")
        return errors.INTERRUPTED
    except OSError as error:
        if debug:
            _trace()
        named = f"{error.filename}: " if error.filename else ""
        _complain(f"{named}{error.strerror or error}", "check the path, its permissions, the disk")
        return errors.USAGE
    except Exception as error:
        if debug:
            _trace()
        _complain(
            f"internal error: {type(error).__name__}: {' '.join(str(error).split())[:300]}",
            "run it again with --debug for the traceback, and please report it",
        )
        return errors.INTERNAL


def _complain(what, remedy):
    print(f"inverse-set: {errors.shown(what)}\n  {errors.shown(remedy)}", file=sys.stderr)


def _trace():
    for line in traceback.format_exc().splitlines():
        print(errors.shown(line), file=sys.stderr)


def main():
    """The console script."""
    streams.prepare()
    code = run(sys.argv[1:])
    refused = streams.finish()
    if refused:
        _complain(f"standard output: {refused.strerror}", "send it elsewhere")
        code = code or errors.USAGE
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # all is done: the exit code says what came of it
    sys.exit(code)
