"""`inverse-set convert`: a released weight file to one that the models load."""

import sys
from pathlib import Path

import numpy as np
from rich.table import Table

from inverse_set.commands import lists, signals
from inverse_set.convert import arrange, converting, home, natural, weight_file
from inverse_set.errors import UserError, WeightError, shown
from inverse_set.models import weights, zoo


def main(values, arguments):
    """Runs the command; returns its exit code."""
    source, destination = _paths(values, arguments)
    classifier = values.network != "fc6_generator"
    for flag, given in (("images", values.images), ("mean", values.mean)):
        if given and not classifier:
            raise UserError(f"--{flag} is of no use to a generator", f"leave --{flag} out")
    if destination.exists() and not values.overwrite:
        raise UserError(f"{destination} is already there", "pass --overwrite to replace it")
    if not source.is_file():
        raise WeightError(source, "no such file", remedy="check the path")
    how = (values.network, values.dtype, values.mean and Path(values.mean))
    with signals.interrupting():
        if values.images:
            pictures = natural.pictures(Path(values.images))
            record = _with_natural(source, destination, how, pictures)
        else:
            record = converting.convert(source, destination, *how)
    if not values.images and classifier:
        print(
            "note: without --images=DIR of natural pictures there are no percentiles, no natural "
            "starting codes and no check of the activations",
            file=sys.stderr,
        )
    if classifier and not record["order"]:
        print(
            f"note: the file does not tell whether pooling or normalisation comes first, which "
            f"sets CaffeNet and AlexNet apart; that it holds {record['network']} is taken on trust",
            file=sys.stderr,
        )
    for key in ("network", "dtype", "mean", "mean_of", "source_sha256", "result_sha256"):
        if key in record:
            print(f"{key}: {shown(record[key])}")
    print(f"written to {shown(destination)} ({destination.stat().st_size / 2**20:.0f} MiB)")
    return 0


def _paths(values, arguments):
    if not values.network:
        raise UserError(
            "no --network given", f"say what the file holds: {', '.join(arrange.NETWORKS)}"
        )
    if len(arguments) not in (1, 2):
        raise UserError(
            "convert takes a source file, and where to write it if not into the cache",
            "write `inverse-set convert SRC [DST.safetensors] --network=caffenet`",
        )
    destination = Path(arguments[1]) if len(arguments) > 1 else home.weights(values.network)
    if destination.suffix != ".safetensors":
        raise UserError(f"{destination} does not end in .safetensors", "name the destination so")
    return Path(arguments[0]), destination


def _with_natural(source, destination, how, pictures):
    """Converts, measures the network on pictures, shows that, and writes both as one file."""
    record, tensors = converting.opened(source, *how)
    with converting.fitting(source):
        held = {name: weight_file.stored(name, a, record["dtype"]) for name, a in tensors}
    part = {name: array.astype(np.float32, copy=False) for name, array in held.items()}
    part = weights.WeightFile(destination.name, part, record, "")
    network = zoo.full_size(record["network"], part)
    statistics, measured, more = natural.measure(network, pictures)
    table = Table(title=f"{network.name} on {more['pictures']} natural pictures", box=None)
    for title in ("layer", "mean", "deviation", "published for CaffeNet"):
        table.add_column(title, justify="left" if title == "layer" else "right")
    for name, (mean, deviation) in statistics.items():
        known = "{:.2f} / {:.2f}".format(*natural.PUBLISHED[name])
        table.add_row(name, f"{mean:.2f}", f"{deviation:.2f}", known)
    lists.show(table)
    everything = held | measured
    shapes = {name: value.shape for name, value in everything.items()}
    return converting.write(source, destination, shapes, everything.items(), record | more)
