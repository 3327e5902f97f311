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
from inverse_set.errors import UserError

MOST = 10**6  # samples, seeds or steps
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


def _define_common(values):
    flags.DEFINE_boolean("help", False, "show this help", flag_values=values)
    flags.DEFINE_boolean("debug", False, "show tracebacks", flag_values=values)


def _define_model(values):
    flags.DEFINE_string(
        "model",
        "mini",
        "mini, caffenet, or a model of your own: FILE.py:NAME or package.module:NAME, a function "
        "without arguments that returns an inverse_set.Model",
        flag_values=values,
    )
    flags.DEFINE_string(
        "subject",
        None,
        "another classifier whose units are meant, with the model's own E and G: scenes for mini, "
        "alexnet or places205 for caffenet",
        flag_values=values,
    )
    flags.DEFINE_string(
        "weights",
        None,
        "random:SEED runs the networks untrained, for timing and tests",
        flag_values=values,
    )


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


def _define_sample(values):
    from inverse_set import constraints, diversity, sampler, seeds, settings
    from inverse_set.models.bind import STARTS

    _define_model(values)
    flags.DEFINE_multi_string(
        "constraint",
        [],
        "LAYER/UNIT[@row,col]:LOW:HIGH; UNIT a 0-based index or a class name, LOW and HIGH numbers "
        "or natural percentiles (p95); repeat it for an intersection",
        flag_values=values,
    )
    flags.DEFINE_integer("num_samples", 500, "pictures to sample", 1, MOST, flag_values=values)
    flags.DEFINE_integer("num_seeds", 10, "seeds, and samples a step", 1, MOST, flag_values=values)
    flags.DEFINE_integer("seed", 0, "random seed", 0, 2**32 - 1, flag_values=values)
    flags.DEFINE_integer(
        "batch",
        None,
        "codes at a time in a gradient step, to save memory; default all seeds, 20 of a joint run",
        1,
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "dry_run", False, "print FLOPs, memory and estimated time; run nothing", flag_values=values
    )
    flags.DEFINE_string("out", None, "folder to write", flag_values=values)
    flags.DEFINE_boolean("overwrite", False, "replace the run in --out", flag_values=values)
    defaults = settings.Settings()
    choices = (
        ("rule", constraints.RULES, "two-sided intervals, or the paper's rule to the letter"),
        ("method", settings.METHODS, "seeds then steps, or all codes together (eq. 16)"),
        ("distance", diversity.DISTANCES, "what is kept apart: eq. 6, 5, 14 or 15"),
        ("memory", sampler.MEMORIES, "whether C0 is replaced (paper) or accumulates"),
        ("walk", settings.WALKS, "steps that stay inside, or longer ones that leave and come back"),
        (
            "stop",
            seeds.STOPS,
            "when the descent ends: seeds inside, joint plateau",
        ),
    )
    for name, allowed, text in choices:
        flags.DEFINE_enum(name, getattr(defaults, name), allowed, text, flag_values=values)
    flags.DEFINE_enum(
        "start",
        None,
        STARTS,
        "codes of the real pictures nearest to the intervals, of any real pictures, of noise "
        "pictures (the paper), or N(0, 1); the default is the first that the model has",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "seed_steps",
        defaults.seed_steps,
        "gradient steps for the seeds at most; those that stay outside are given up earlier",
        1,
        MOST,
        flag_values=values,
    )
    flags.DEFINE_float(
        "step",
        None,
        "length of a sampling step as a share of the natural distance between codes (0.2); with "
        "--rule=paper the factor beta of the plain gradient (1e-4)",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "natural_codes", True, "hold codes to the natural range of E", flag_values=values
    )


def _define_convert(values):
    from inverse_set.convert import arrange, weight_file

    flags.DEFINE_enum("network", None, arrange.NETWORKS, "what the file holds", flag_values=values)
    flags.DEFINE_enum(
        "dtype", "fp32", weight_file.DTYPES, "precision of the result", flag_values=values
    )
    flags.DEFINE_string(
        "mean",
        None,
        "mean picture of the training data (.binaryproto, .npy, .mat), kept as a mean colour; "
        "default that in the file, else ImageNet's",
        flag_values=values,
    )
    flags.DEFINE_string(
        "images",
        None,
        "folder of natural pictures: checks the activations, and gives the percentiles, the "
        "range of codes and the starting codes that mini brings along",
        flag_values=values,
    )
    flags.DEFINE_boolean("overwrite", False, "replace what is there", flag_values=values)


def _define_fetch(values):
    flags.DEFINE_string(
        "source", None, "another released file of the same network, by name", flag_values=values
    )
    flags.DEFINE_string(
        "url",
        None,
        "a mirror of the file; its checksum is checked all the same",
        flag_values=values,
    )
    flags.DEFINE_float("timeout", 60.0, "seconds a server may be silent", 0.1, flag_values=values)
    flags.DEFINE_boolean(
        "overwrite", False, "replace the weights that are here", flag_values=values
    )


def _define_units(values):
    _define_model(values)
    flags.DEFINE_string(
        "layer", None, "which layer; the default is fc8, or the last", flag_values=values
    )


def _define_verify(values):
    flags.DEFINE_string(
        "model",
        None,
        "of a run of your own model, where that is: FILE.py:NAME or package.module:NAME",
        flag_values=values,
    )


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
    "sample": (_define_sample, _sample),
    "convert": (_define_convert, _convert),
    "fetch": (_define_fetch, _fetch),
    "units": (_define_units, _units),
    "verify": (_define_verify, _verify),
    "models": (lambda values: None, _models),
}


def _parse(name, arguments):
    """The command's flags and its other arguments; UserError instead of absl's usage dump."""
    values = flags.FlagValues()
    _define_common(values)
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
