"""Downloads from a local server that misbehaves in every way we know."""

import fcntl
import gzip
import hashlib
import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections import namedtuple

import numpy as np
import pytest

from inverse_set.convert import download, unpack
from inverse_set.errors import USAGE, WEIGHTS, UserError, WeightError
from tests.convert import http_server
from tests.convert.http_server import Page

BODY = np.random.default_rng(0).bytes(1_000_000)
OTHER = np.random.default_rng(1).bytes(1_000_000)
SHA1 = "sha1:" + hashlib.sha1(BODY).hexdigest()
HALF = 524_288


@pytest.fixture
def server():
    with http_server.serving() as running:
        yield running


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


def get(server, path, checksum=SHA1, address="/file", **more):
    return download.download(server.url + address, path, checksum, **{"timeout": 5.0, **more})


def refused(server, path, *words, code=WEIGHTS, **more):
    """The download fails with these words; returns how many bytes are kept."""
    with pytest.raises(UserError) as caught:
        get(server, path, **more)
    assert caught.value.code == code
    for word in words:
        assert word in str(caught.value)
    assert not path.exists()
    part = path.with_name("file.part")
    return part.stat().st_size if part.exists() else 0


def halve(server, path, page, **more):
    """Leaves half the file behind, as a connection that broke."""
    server.pages["/file"] = page._replace(cut=HALF, ranges=False)
    assert refused(server, path, "ended before the file did", "again", **more) == HALF
    server.pages["/file"] = page
    server.forget()


def alone(path):
    """Nothing is left beside the file."""
    return [item.name for item in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("checksum", [SHA1, None])
def test_a_good_file(server, path, checksum):
    server.pages["/file"] = Page(BODY)
    seen = []
    assert get(server, path, checksum, report=lambda *told: seen.append(told)) == path
    assert path.read_bytes() == BODY and alone(path)
    assert seen[-1] == (len(BODY), len(BODY)) and server.asked == [("/file", None, None)]
    get(server, path, checksum)
    assert len(server.asked) == 1


def test_a_wrong_file_is_deleted(server, path):
    server.pages["/file"] = Page(OTHER)
    got = hashlib.sha1(OTHER).hexdigest()
    assert refused(server, path, SHA1, got, "--url") == 0
    assert not list(path.parent.iterdir())


def test_a_damaged_file_is_downloaded_again(server, path):
    server.pages["/file"] = Page(BODY)
    path.write_bytes(BODY[:-1])
    get(server, path)
    assert path.read_bytes() == BODY and len(server.asked) == 1


VALIDATORS = [
    ({}, '"one"'),
    ({"tag": None, "modified": "Mon, 02 Jan 2012 03:04:05 GMT"}, "Mon, 02 Jan 2012 03:04:05 GMT"),
    (
        {"tag": 'W/"weak"', "modified": "Mon, 02 Jan 2012 03:04:05 GMT"},
        "Mon, 02 Jan 2012 03:04:05 GMT",
    ),
]


@pytest.mark.parametrize(("page", "validator"), VALIDATORS)
@pytest.mark.parametrize("checksum", [SHA1, None])
def test_it_goes_on_where_it_stopped(server, path, page, validator, checksum):
    halve(server, path, Page(BODY, **page), checksum=checksum)
    get(server, path, checksum)
    assert path.read_bytes() == BODY and alone(path)
    assert server.asked == [("/file", f"bytes={HALF}-", validator)]
    assert server.sent == len(BODY) - HALF


@pytest.mark.parametrize("checksum", [SHA1, None])
def test_without_a_validator_only_a_checksum_allows_to_go_on(server, path, checksum):
    halve(server, path, Page(BODY, tag=None), checksum=checksum)
    get(server, path, checksum)
    assert path.read_bytes() == BODY
    assert server.asked == [("/file", f"bytes={HALF}-" if checksum else None, None)]


def test_a_break_is_mended_at_once_while_it_goes_further(server, path):
    server.pages["/file"] = Page(BODY, cut=300_000)
    get(server, path)
    assert path.read_bytes() == BODY and server.sent == len(BODY)
    asked = [span for _, span, _ in server.asked]
    assert asked == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]


def test_a_server_that_ignores_ranges(server, path):
    halve(server, path, Page(BODY, ranges=False))
    get(server, path)
    assert path.read_bytes() == BODY and server.sent == len(BODY)


def test_another_version_meanwhile(server, path):
    halve(server, path, Page(BODY))
    server.pages["/file"] = Page(OTHER, tag='"two"')
    get(server, path, None)
    assert path.read_bytes() == OTHER and server.sent == len(OTHER)


@pytest.mark.parametrize("body", [OTHER, OTHER[:-1], OTHER[:1000]])
def test_another_version_and_a_server_that_ignores_if_range(server, path, body):
    halve(server, path, Page(BODY))
    server.pages["/file"] = Page(body, tag='"two"', conditional=False)
    get(server, path, None)
    assert path.read_bytes() == body and len(server.asked) == 2


def test_another_size_and_no_validator(server, path):
    halve(server, path, Page(BODY, tag=None))
    server.pages["/file"] = Page(OTHER[:-1], tag=None)
    get(server, path, "sha1:" + hashlib.sha1(OTHER[:-1]).hexdigest())
    assert path.read_bytes() == OTHER[:-1] and len(server.asked) == 2


def test_another_address_starts_over(server, path):
    halve(server, path, Page(BODY))
    server.pages["/mirror"] = Page(BODY)
    get(server, path, address="/mirror")
    assert server.asked == [("/mirror", None, None)] and path.read_bytes() == BODY


@pytest.mark.parametrize("notes", ["", "{", "[]", '{"url": 3}', '{"url": "URL", "validator": 5}'])
def test_damaged_notes_start_over(server, path, notes):
    halve(server, path, Page(BODY))
    path.with_name("file.part.json").write_text(notes.replace("URL", f"{server.url}/file"))
    get(server, path)
    assert path.read_bytes() == BODY and server.sent == len(BODY)


def test_a_whole_part_needs_no_request(server, path):
    halve(server, path, Page(BODY))
    path.with_name("file.part").write_bytes(BODY)
    get(server, path)
    assert path.read_bytes() == BODY and not server.asked


def test_a_damaged_part_does_not_come_back(server, path):
    halve(server, path, Page(BODY))
    path.with_name("file.part").write_bytes(OTHER[:HALF])
    assert refused(server, path, "expected sha1") == 0
    get(server, path)
    assert path.read_bytes() == BODY


def test_a_part_that_is_too_long(server, path):
    halve(server, path, Page(BODY))
    path.with_name("file.part").write_bytes(OTHER + OTHER)
    get(server, path)
    assert path.read_bytes() == BODY and len(server.asked) == 2


def test_a_silent_server(server, path):
    server.pages["/file"] = Page(BODY, hang=HALF)
    assert refused(server, path, "0.3 seconds", "--timeout", timeout=0.3) > 0
    server.pages["/file"] = Page(BODY)
    server.forget()
    get(server, path)
    assert path.read_bytes() == BODY and server.sent < len(BODY)


@pytest.mark.parametrize("length", [2_000_000, 500_000])
def test_a_false_length(server, path, length):
    server.pages["/file"] = Page(BODY, length=length, ranges=False)
    refused(server, path)


def test_no_length(server, path):
    server.pages["/file"] = Page(BODY, length=False)
    get(server, path)
    assert path.read_bytes() == BODY


def test_a_packed_file_stays_packed(server, path):
    """Some servers call a .tar.gz a gzip-encoded .tar."""
    body = gzip.compress(BODY)
    server.pages["/file"] = Page(body, encoding="gzip")
    get(server, path, None)
    assert path.read_bytes() == body


STATUS = [
    (404, "by hand"),
    (410, "inverse-set convert"),
    (403, "--url"),
    (503, "try later"),
    (429, "try later"),
    (204, "--url"),
]


@pytest.mark.parametrize(("status", "word"), STATUS)
def test_no_file(server, path, status, word):
    server.pages["/file"] = Page(status=status)
    refused(server, path, str(status), word)


def test_a_web_page(server, path):
    server.pages["/file"] = Page(b"<html>moved</html>", kind="text/html; charset=utf-8")
    assert refused(server, path, "web page") == 0


def test_redirects(server, path):
    server.pages["/file"] = Page(to="/elsewhere")
    server.pages["/elsewhere"] = Page(BODY)
    get(server, path)
    assert path.read_bytes() == BODY
    path.unlink()
    server.pages["/elsewhere"] = Page(to="/file")
    refused(server, path, "circles")


def test_no_one_there(server, path):
    for address in (http_server.free_address(), "http://no-such-host.invalid"):
        with pytest.raises(UserError, match="cannot reach") as caught:
            download.download(f"{address}/file", path, SHA1, timeout=5.0)
        assert caught.value.code == WEIGHTS


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "host/x", "", "http:///x"])
def test_no_address(path, url):
    with pytest.raises(UserError, match="address"):
        download.download(url, path, SHA1)


@pytest.mark.parametrize("length", [None, False])
def test_more_than_allowed(server, path, length):
    server.pages["/file"] = Page(BODY, length=length)
    assert refused(server, path, "allowed are 100000", limit=100_000) == 0


def test_a_full_disk(server, path, monkeypatch):
    server.pages["/file"] = Page(BODY)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(2, 1, 1000))
    refused(server, path, "No space left", "INVERSE_SET_HOME", code=USAGE)
    monkeypatch.undo()

    def full(*told):
        raise OSError(28, "No space left on device")

    assert refused(server, path, "No space left", code=USAGE, report=full) > 0


def test_a_signal_while_the_file_is_checked_loses_nothing(server, path, monkeypatch):
    import pooch.core

    def interrupted(*arguments, **more):
        raise KeyboardInterrupt

    server.pages["/file"] = Page(BODY)
    monkeypatch.setattr(pooch.core, "hash_matches", interrupted)
    with pytest.raises(KeyboardInterrupt):
        get(server, path)
    monkeypatch.undo()
    get(server, path)
    assert path.read_bytes() == BODY and alone(path) and len(server.asked) == 1


def test_two_at_once(server, path):
    server.pages["/file"] = Page(BODY)
    with open(path.with_name("file.part"), "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        refused(server, path, "already", code=USAGE)
    get(server, path)


def test_without_pooch(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(UserError, match="install pooch") as caught:
        download.download("http://localhost/file", path, SHA1)
    assert caught.value.code == USAGE


def test_importing_brings_no_network():
    code = (
        "import sys, inverse_set.commands.fetch\n"
        "assert not {'pooch', 'requests', 'urllib3'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def tar(path, *items):
    """items: (name, bytes) or (name, type, link target)."""
    with tarfile.open(path, "w:gz") as archive:
        for name, *what in items:
            info = tarfile.TarInfo(name)
            if len(what) == 1:
                info.size = len(what[0])
                archive.addfile(info, io.BytesIO(what[0]))
            else:
                info.type, info.linkname = what
                archive.addfile(info)
    return path


def zipped(path, *items):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body, *mode in items:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (mode[0] if mode else stat.S_IFREG | 0o644) << 16
            archive.writestr(info, body)
    return path


@pytest.mark.parametrize("pack", [tar, zipped])
@pytest.mark.parametrize("name", ["m/net", "m/net/", "a/m/net", "../../m/net", "/etc/m/net"])
def test_one_member_and_only_where_we_say(tmp_path, pack, name):
    name = name.rstrip("/")
    inner = tmp_path / "deep" / "er"
    inner.mkdir(parents=True)
    archive = pack(inner / "archive", ("readme", b"hello"), ("m/netx", b"no"), (name, BODY))
    unpack.extract(archive, "m/net", inner / "out", len(BODY))
    assert (inner / "out").read_bytes() == BODY
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["archive", "out"]


LINK = (tarfile.SYMTYPE, "/etc/passwd")
BAD = [
    (tar, [("readme", b"hello")], "no regular file"),
    (tar, [("net", *LINK)], "no regular file"),
    (tar, [("net", tarfile.LNKTYPE, "/etc/passwd")], "no regular file"),
    (tar, [("net", tarfile.DIRTYPE, "")], "no regular file"),
    (tar, [("net", bytes(200_000))], "allowed are 100000"),
    (tar, [("x" * 3_000_000, b""), ("net", b"1")], "header of"),
    (zipped, [("readme", b"hello")], "no regular file"),
    (zipped, [("net/", b"")], "no regular file"),
    (zipped, [("net", b"/etc/passwd", stat.S_IFLNK | 0o777)], "no regular file"),
    (zipped, [("net", bytes(200_000))], "allowed are 100000"),
]


@pytest.mark.parametrize(("pack", "items", "word"), BAD)
def test_members_refused(tmp_path, pack, items, word):
    archive = pack(tmp_path / "archive", *items)
    with pytest.raises(WeightError, match=word):
        unpack.extract(archive, "net", tmp_path / "out", 100_000)
    assert os.listdir(tmp_path) == ["archive"]


@pytest.mark.parametrize("pack", [tar, zipped])
def test_damaged_archives(tmp_path, pack):
    archive = pack(tmp_path / "archive", ("net", BODY[:50_000]))
    whole = archive.read_bytes()
    rng = np.random.default_rng(2)
    damaged = [b"", b"<html>", whole[:100], whole[: len(whole) // 2], whole[:-30]]
    for at in rng.integers(0, len(whole), 60):
        damaged.append(whole[:at] + rng.bytes(4) + whole[at + 4 :])
    for case in damaged:
        archive.write_bytes(case)
        try:
            unpack.extract(archive, "net", tmp_path / "out", 100_000)
        except WeightError:
            assert os.listdir(tmp_path) == ["archive"]
        else:
            (tmp_path / "out").unlink()
