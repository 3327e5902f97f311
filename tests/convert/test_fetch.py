"""`inverse-set fetch` as a person meets it, against a local server."""

import hashlib
import io
import signal
import subprocess
import sys
import tarfile
import time
import types

import numpy as np
import pytest

from inverse_set.commands import fetch
from inverse_set.convert import download, home, released
from inverse_set.errors import INTERRUPTED, USAGE, WEIGHTS, UserError, WeightError
from tests.convert import http_server
from tests.convert.http_server import Page

BODY = np.random.default_rng(0).bytes(1_000_000)
OTHER = np.random.default_rng(1).bytes(1_000_000)
SHA1 = "sha1:" + hashlib.sha1(BODY).hexdigest()
SHA256 = hashlib.sha256(BODY).hexdigest()
ROW = released.Released(
    "first", "caffenet", "", SHA1, "first.net", "caffemodel", None, "Terms of use.", 1_000_000
)


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server of /first, and a table of a checked, an unchecked and a packed file."""
    monkeypatch.setenv("INVERSE_SET_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(fetch, "converted", convert)
    with http_server.serving() as running:
        rows = (
            ROW._replace(url=f"{running.url}/first"),
            ROW._replace(
                name="second", url=f"{running.url}/second", checksum=None, file="second.net"
            ),
            ROW._replace(
                name="packed",
                url=f"{running.url}/packed",
                checksum=None,
                file="packed.tar.gz",
                member="inside/net.caffemodel",
                size=None,
            ),
        )
        monkeypatch.setattr(released, "TABLE", rows)
        running.pages.update(
            {"/first": Page(BODY), "/second": Page(BODY), "/packed": Page(packed())}
        )
        yield running


def convert(source, destination, network):
    """Stands for the conversion: the network's name, then the file."""
    destination.write_bytes(network.encode() + source.read_bytes())


def packed():
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        info = tarfile.TarInfo("inside/net.caffemodel")
        info.size = len(BODY)
        archive.addfile(info, io.BytesIO(BODY))
    return held.getvalue()


def run(*arguments, **flags):
    given = {"source": None, "url": None, "timeout": 5.0, "overwrite": False, **flags}
    return fetch.main(types.SimpleNamespace(**given), list(arguments) or ["caffenet"])


def refused(*words, code=WEIGHTS, arguments=(), **flags):
    with pytest.raises(UserError) as caught:
        run(*arguments, **flags)
    assert caught.value.code == code, caught.value
    for word in words:
        assert word in str(caught.value)


def kept():
    """The names of our downloads."""
    return sorted(path.name for path in home.downloads().iterdir())


def test_homes(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/someone")
    monkeypatch.delenv("INVERSE_SET_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert str(home.folder()) == "/someone/.cache/inverse_set"
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert str(home.weights("alexnet")) == "/cache/inverse_set/weights/alexnet.safetensors"
    monkeypatch.setenv("INVERSE_SET_HOME", "~/here")
    assert str(home.downloads()) == "/someone/here/downloads"


def test_the_table():
    assert {row.network for row in released.TABLE} == set(released.NETWORKS)
    assert len({row.name for row in released.TABLE}) == len(released.TABLE)
    assert len({row.file for row in released.TABLE}) == len(released.TABLE)
    sizes = {"sha1": 40, "md5": 32}
    for row in released.TABLE:
        assert row.url.startswith(("http://", "https://")) and "/" not in row.file
        assert (row.member is not None) == row.file.endswith((".zip", ".tar.gz"))
        assert row.format in ("caffemodel", "mat", "torch") and row.terms.endswith(".")
        if row.checksum:
            algorithm, _, digest = row.checksum.partition(":")
            assert len(bytes.fromhex(digest)) * 2 == sizes[algorithm]
    assert [released.rows(name)[0].name for name in released.NETWORKS] == [
        "bvlc_reference_caffenet",
        "bvlc_alexnet",
        "placesCNN",
        "ppgn",
    ]


def test_a_checked_file(server, capsys):
    assert run() == 0
    said = capsys.readouterr()
    assert "Terms of use." in said.out and "about 1 MB" in said.out
    assert str(home.weights("caffenet")) in said.out
    assert "download: 1.0 of 1.0, MB" in said.err and "WARNING" not in said.err
    assert home.weights("caffenet").read_bytes() == b"caffenet" + BODY
    assert kept() == ["first.net"]


def test_what_is_here_is_not_fetched_again(server, capsys):
    run()
    home.weights("caffenet").write_bytes(b"mine")
    assert run() == 0
    assert "--overwrite" in capsys.readouterr().out
    assert home.weights("caffenet").read_bytes() == b"mine"
    assert run(overwrite=True) == 0
    assert home.weights("caffenet").read_bytes() == b"caffenet" + BODY
    assert len(server.asked) == 1


def test_a_file_nobody_vouches_for(server, capsys):
    assert run(source="second") == 0
    said = capsys.readouterr().err
    assert said.count("WARNING") == 2 and "PLAIN HTTP" in said and SHA256 in said
    assert kept() == ["second.net", "second.net.sha256"]
    run(source=f"{server.url}/second", overwrite=True)
    assert len(server.asked) == 1


def test_an_unchecked_file_that_changed(server):
    run(source="second")
    (home.downloads() / "second.net").unlink()
    server.pages["/second"] = Page(OTHER)
    refused(SHA256, "second.net.sha256", source="second", overwrite=True)
    assert kept() == ["second.net.sha256"]
    (home.downloads() / "second.net.sha256").write_text("?")
    refused("delete it", code=USAGE, source="second", overwrite=True)
    (home.downloads() / "second.net.sha256").unlink()
    assert run(source="second", overwrite=True) == 0


def test_an_archive(server, capsys):
    assert run(source="packed") == 0
    assert "size unknown" in capsys.readouterr().out
    assert home.weights("caffenet").read_bytes() == b"caffenet" + BODY
    assert kept() == ["packed.tar.gz", "packed.tar.gz.sha256"]


def test_a_broken_archive(server):
    server.pages["/packed"] = Page(BODY)
    refused("archive", "delete", "--source", source="packed")
    assert kept() == ["packed.tar.gz"] and not home.weights("caffenet").exists()


def test_a_file_that_is_no_network(server, monkeypatch):
    def broken(source, destination, network):
        raise WeightError(source, "no layer fc6", "fc6", 12)

    monkeypatch.setattr(fetch, "converted", broken)
    refused("layer fc6, byte 12", "to download it again", source="second")
    assert kept() == ["second.net"]


def test_a_mirror(server):
    server.pages["/mirror"] = Page(BODY)
    server.pages["/wrong"] = Page(OTHER)
    refused(SHA1, "--url", url=f"{server.url}/wrong")
    assert kept() == []
    assert run(url=f"{server.url}/mirror") == 0
    assert [path for path, _, _ in server.asked] == ["/wrong", "/mirror"]


def test_a_dead_address(server):
    server.pages.clear()
    refused("404", "--url", "inverse-set convert")
    assert not home.weights("caffenet").exists()


def test_more_than_its_size(server):
    server.pages["/first"] = Page(BODY + OTHER + OTHER)
    refused("allowed are 2000000")


@pytest.mark.parametrize("source", ["first", "packed"])
def test_one_file_by_two_commands_at_once(server, monkeypatch, source):
    """The second comes while the first converts, and is refused; another file is no hindrance."""

    def slow(*arguments):
        monkeypatch.setattr(fetch, "converted", convert)
        other = "packed" if source == "first" else "first"
        refused("another command is fetching", code=USAGE, source=source, overwrite=True)
        assert run(source=other) == 0
        convert(*arguments)

    monkeypatch.setattr(fetch, "converted", slow)
    assert run(source=source) == 0
    assert home.weights("caffenet").read_bytes() == b"caffenet" + BODY
    assert kept() == ["first.net", "packed.tar.gz", "packed.tar.gz.sha256"]


def test_what_a_killed_command_left(server):
    folder = home.downloads()
    folder.mkdir(parents=True)
    for name in (".packed.tar.gz.lock", "packed-net.caffemodel", "packed-net.caffemodel.part"):
        (folder / name).write_bytes(b"left")
    assert run(source="packed") == 0
    assert home.weights("caffenet").read_bytes() == b"caffenet" + BODY
    assert kept() == ["packed.tar.gz", "packed.tar.gz.sha256"]


BAD = [
    ({"arguments": ("vgg",)}, "'vgg'"),
    ({"arguments": ("caffenet", "alexnet")}, "one network"),
    ({"arguments": ("alexnet",), "source": "first"}, "no source"),
    ({"source": "third"}, "first, second, packed"),
    ({"source": "http://elsewhere/file"}, "--url"),
    ({"timeout": 0.0}, "timeout"),
    ({"timeout": float("nan")}, "timeout"),
    ({"url": "file:///etc/passwd"}, "address"),
]


@pytest.mark.parametrize(("given", "word"), BAD)
def test_bad_input(server, given, word):
    refused(word, code=USAGE, **given)
    assert not server.asked


def test_a_home_that_cannot_be(server, monkeypatch, tmp_path):
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("INVERSE_SET_HOME", str(tmp_path / "taken"))
    refused("INVERSE_SET_HOME", code=USAGE)


def test_a_signal_from_within(server, monkeypatch):
    """The handlers are ours during the work alone."""
    before = signal.getsignal(signal.SIGTERM)

    def stopped(*arguments):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(fetch, "converted", stopped)
    refused("interrupted", code=INTERRUPTED)
    assert signal.getsignal(signal.SIGTERM) is before and kept() == ["first.net"]


SCRIPT = """
import sys, types
from inverse_set.commands import fetch
from inverse_set.convert import released
from inverse_set.errors import UserError
row = released.Released("first", "caffenet", sys.argv[1], sys.argv[2], "first.net", "", None, "", 1)
released.TABLE = (row._replace(size=1_000_000),)
fetch.converted = lambda source, destination, network: destination.write_bytes(b"done")
values = types.SimpleNamespace(source=None, url=None, timeout=60.0, overwrite=False)
try:
    sys.exit(fetch.main(values, ["caffenet"]))
except UserError as error:
    print(error, file=sys.stderr)
    sys.exit(error.code)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("page", [Page(BODY, slow=0.3), Page(BODY, hang=600_000)])
def test_a_signal_keeps_what_came(server, number, page):
    """From outside, while bytes trickle or the server is silent; the next call goes on."""
    server.pages["/first"] = page
    command = [sys.executable, "-c", SCRIPT, f"{server.url}/first", SHA1]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        said = process.stderr.readline()
        assert said.startswith("download:")
        time.sleep(0.5)
        process.send_signal(number)
        began = time.monotonic()
        said += process.stderr.read()
        assert process.wait(30) == INTERRUPTED, said
    assert time.monotonic() - began < 5
    assert "interrupted" in said and "goes on" in said and "Traceback" not in said
    have = (home.downloads() / "first.net.part").stat().st_size
    assert 0 < have < len(BODY) and kept() == ["first.net.part", "first.net.part.json"]
    server.pages["/first"] = Page(BODY)
    server.forget()
    assert run() == 0
    assert server.asked[-1][1] == f"bytes={have}-" and server.sent == len(BODY) - have
    assert (home.downloads() / "first.net").read_bytes() == BODY


def test_the_conversion_is_asked_for_by_name(monkeypatch, tmp_path):
    asked = []
    module = types.ModuleType("converting")
    module.convert = lambda *given: asked.append(given)
    from inverse_set import convert as package

    monkeypatch.setitem(sys.modules, "inverse_set.convert.converting", module)
    monkeypatch.setattr(package, "converting", module, raising=False)
    fetch.converted("a", "b", "alexnet")
    assert asked == [("a", "b", "alexnet")]
    assert download.AGAIN.startswith("run the same command again")
