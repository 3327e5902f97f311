"""The released weight files: where they are, how to know them, on which terms."""

from typing import NamedTuple

NETWORKS = ("caffenet", "alexnet", "places205", "fc6_generator")

_BVLC = "Its authors release it for unrestricted use; please cite Caffe (Jia et al., 2014)."
_MATCONVNET = (
    "Converted by the MatConvNet team, who ask for their copyright notice to be kept; the network "
    "is BVLC's, released for unrestricted use."
)
_DEEPSIM = (
    "For research only, commercial use by the authors' consent; please cite Dosovitskiy and Brox "
    "(2016)."
)


class Released(NamedTuple):
    """One released file.

    name: what --source calls it.  network: which network it holds.  url: its address.
    checksum: "algorithm:hexdigest" as its authors published it, or None.
    file: its name among our downloads.  format: caffemodel, mat or torch.
    member: the end of the path of the one file we need if it is an archive, else None.
    terms: on which terms it is released.  size: bytes, roughly; None if we do not know.
    """

    name: str
    network: str
    url: str
    checksum: str | None
    file: str
    format: str
    member: str | None
    terms: str
    size: int | None


# The first row of a network is its default.
TABLE = (
    Released(
        name="bvlc_reference_caffenet",
        network="caffenet",
        url="http://dl.caffe.berkeleyvision.org/bvlc_reference_caffenet.caffemodel",
        checksum="sha1:4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46",
        file="bvlc_reference_caffenet.caffemodel",
        format="caffemodel",
        member=None,
        terms=_BVLC,
        size=244_000_000,
    ),
    Released(
        name="imagenet-caffe-ref",
        network="caffenet",
        url="http://www.vlfeat.org/matconvnet/models/imagenet-caffe-ref.mat",
        checksum="md5:6d69dfa6e549012c94546658737c5885",
        file="imagenet-caffe-ref.mat",
        format="mat",
        member=None,
        terms=_MATCONVNET,
        size=230_000_000,
    ),
    Released(
        name="bvlc_alexnet",
        network="alexnet",
        url="http://dl.caffe.berkeleyvision.org/bvlc_alexnet.caffemodel",
        checksum="sha1:9116a64c0fbe4459d18f4bb6b56d647b63920377",
        file="bvlc_alexnet.caffemodel",
        format="caffemodel",
        member=None,
        terms=_BVLC,
        size=244_000_000,
    ),
    Released(
        name="imagenet-caffe-alex",
        network="alexnet",
        url="http://www.vlfeat.org/matconvnet/models/imagenet-caffe-alex.mat",
        checksum="md5:ed49ef44caf18496291ce0c3257b0596",
        file="imagenet-caffe-alex.mat",
        format="mat",
        member=None,
        terms=_MATCONVNET,
        size=230_000_000,
    ),
    Released(
        name="placesCNN",
        network="places205",
        url="http://places.csail.mit.edu/model/placesCNN.tar.gz",
        checksum=None,
        file="placesCNN.tar.gz",
        format="caffemodel",
        member="places205CNN_iter_300000.caffemodel",
        terms=(
            "We found no licence with the file; its authors ask to be cited (Zhou et al., 2014). "
            "Read the terms at places.csail.mit.edu."
        ),
        size=230_000_000,
    ),
    Released(
        name="ppgn",
        network="fc6_generator",
        url="http://s.anhnguyen.me/181007__generator.caffemodel",
        checksum=None,
        file="181007__generator.caffemodel",
        format="caffemodel",
        member=None,
        terms=(
            "We found no licence with the file itself; it belongs to the PPGN code, so please cite "
            "Nguyen et al. (2017) and ask its authors before other use than research."
        ),
        size=224_000_000,
    ),
    Released(
        name="deepsim",
        network="fc6_generator",
        url="http://s.anhnguyen.me/release_deepsim_v0.zip",
        checksum=None,
        file="release_deepsim_v0.zip",
        format="caffemodel",
        member="fc6/generator.caffemodel",
        terms=_DEEPSIM,
        size=None,
    ),
    Released(
        name="deepsim-freiburg",
        network="fc6_generator",
        url=(
            "https://lmb.informatik.uni-freiburg.de/resources/binaries/"
            "arxiv2016_alexnet_inversion_with_gans/release_deepsim_v0.zip"
        ),
        checksum=None,
        file="release_deepsim_v0_freiburg.zip",
        format="caffemodel",
        member="fc6/generator.caffemodel",
        terms=_DEEPSIM,
        size=None,
    ),
    Released(
        name="upconvGAN_fc6",
        network="fc6_generator",
        url=(
            "https://huggingface.co/binxu/DeePSim_DosovitskiyBrox2016/resolve/main/upconvGAN_fc6.pt"
        ),
        checksum=None,
        file="upconvGAN_fc6.pt",
        format="torch",
        member=None,
        terms=f"A port of DeePSiM's generator. {_DEEPSIM}",
        size=224_000_000,
    ),
)


def rows(network):
    """The files that hold a network, the default first."""
    return [row for row in TABLE if row.network == network]
