"""The flags of each command, as absl defines them; values: the `FlagValues` to define them in."""

from absl import flags

MOST = 10**6  # samples, seeds or steps


def common(values):
    flags.DEFINE_boolean("help", False, "show this help", flag_values=values)
    flags.DEFINE_boolean("debug", False, "show tracebacks", flag_values=values)


def model(values):
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


def sample(values):
    from inverse_set import constraints, diversity, sampler, seeds, settings
    from inverse_set.models.bind import STARTS

    model(values)
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


def convert(values):
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


def fetch(values):
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


def units(values):
    model(values)
    flags.DEFINE_string(
        "layer", None, "which layer; the default is fc8, or the last", flag_values=values
    )


def verify(values):
    flags.DEFINE_string(
        "model",
        None,
        "of a run of your own model, where that is: FILE.py:NAME or package.module:NAME",
        flag_values=values,
    )
