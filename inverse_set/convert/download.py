"""Downloads a file over HTTP, going on where an earlier try stopped.

While it comes in, NAME is NAME.part, and NAME.part.json says which version of it that is.
"""

import contextlib
import errno
import json
import os
import pathlib
import re
import shutil
from typing import Any, NamedTuple

from inverse_set.errors import WEIGHTS, UserError

CHUNK = 1 << 16
TRIES = 4  # connections a download may use up while each brings it further
AGAIN = "run the same command again: it goes on where it stopped"
ELSEWHERE = "give a mirror by --url, or download it by hand and use `inverse-set convert`"


class Job(NamedTuple):
    """url: the address.  part: the file to complete.  checksum: "algorithm:hexdigest" or None.

    timeout: seconds of silence allowed.  limit: bytes allowed.  report: told (bytes, total or
    None) after each chunk.
    """

    url: str
    part: pathlib.Path
    checksum: str | None
    timeout: float
    limit: int
    report: Any

    @property
    def notes(self):
        return self.part.with_name(f"{self.part.name}.json")

    def forget(self):
        self.part.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)


class WrongFile(UserError):
    """What came is not the file the checksum names."""


class _Broken(Exception):
    """The connection ended before the file did, or what came does not fit what is here."""


def download(url, path, checksum, timeout=60.0, limit=1 << 32, report=lambda done, total: None):
    """Makes `path` the file at `url`; downloads nothing if it is there and fits the checksum.

    Raises UserError, code 4 if the file could not be had.  The partial file survives all but a
    wrong checksum.
    """
    pooch = _pooch()
    if not re.match("https?://[^/]", url):
        raise UserError(f"{url!r} is no address", "write http://... or https://...")
    job = Job(url, path.with_name(f"{path.name}.part"), checksum, timeout, limit, report)

    def complete(address, output, pup):
        _complete(job)
        # pooch checks the hash of `output` next; until then the part must survive a signal.
        os.unlink(output)
        try:
            os.link(job.part, output)
        except OSError:
            shutil.copyfile(job.part, output)

    with disk(path.parent):
        try:
            pooch.retrieve(url, checksum, path.name, path.parent, downloader=complete)
        except ValueError:
            algorithm = checksum.partition(":")[0]
            got = pooch.file_hash(str(job.part), algorithm)
            job.forget()
            raise WrongFile(
                f"{url}: expected {checksum}, got {algorithm}:{got}; it is deleted",
                f"try again, or {ELSEWHERE}",
                WEIGHTS,
            ) from None
        job.forget()
    return path


def _pooch():
    try:
        import pooch
    except ImportError:
        raise UserError(
            "downloading needs the package pooch", "install pooch>=1.8 into the same environment"
        ) from None
    pooch.get_logger().setLevel("WARNING")
    return pooch


@contextlib.contextmanager
def disk(folder):
    """Turns what the disk refuses into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{error.filename or folder}: {error.strerror or error}",
            "free space, or name another folder in $INVERSE_SET_HOME",
        ) from None


def _complete(job):
    """Completes the part, over several connections if one breaks."""
    import fcntl

    import requests

    with open(job.part, "ab") as file, requests.Session() as session:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{job.part.name} is being downloaded already", "wait for the other command"
            ) from None
        furthest = -1
        for _ in range(TRIES):
            try:
                return _receive(job, session, file)
            except _Broken as broken:
                reason, size = broken, _size(file)
                if size <= furthest:
                    break
                furthest = size
        raise UserError(f"{job.url}: {reason}; {size} bytes are kept", AGAIN, WEIGHTS)


def _size(file):
    file.flush()
    return os.fstat(file.fileno()).st_size


def _receive(job, session, file):
    """One request: what is missing of the part, or all of it."""
    have, notes = _size(file), _notes(job)
    if have and have == notes.get("size"):
        return
    headers = {"Accept-Encoding": "identity"}
    # Without a validator only a checksum can tell whether two halves are of one file.
    if have and (notes.get("validator") or (notes and job.checksum)):
        headers["Range"] = f"bytes={have}-"
        if notes.get("validator"):
            headers["If-Range"] = notes["validator"]
    with (
        _network(job),
        session.get(job.url, headers=headers, stream=True, timeout=job.timeout) as answer,
    ):
        _acceptable(job, answer)
        if answer.status_code == 200:
            have = 0
            file.truncate(0)
            notes = _note(job, answer)
        elif not _continues(answer, have, notes):
            file.truncate(0)
            job.notes.unlink(missing_ok=True)
            raise _Broken("the server sends another part than the one asked for")
        _room(job, notes["size"], have)
        for chunk in answer.raw.stream(CHUNK, decode_content=False):
            file.write(chunk)
            have += len(chunk)
            _room(job, have, have)
            job.report(have, notes["size"])
        _size(file)


def _notes(job):
    """What was noted of the version the part is of; {} if nothing that fits the address."""
    try:
        notes = json.loads(job.notes.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(notes, dict) or notes.get("url") != job.url:
        return {}
    fits = isinstance(notes.get("validator"), str | None) and isinstance(
        notes.get("size"), int | None
    )
    return {"validator": None, "size": None, **notes} if fits else {}


def _note(job, answer):
    """Notes which version the answer carries, and its size if the server says."""
    length = answer.headers.get("Content-Length", "")
    size = int(length) if length.isdecimal() else None
    notes = {"url": job.url, "validator": _validator(answer), "size": size}
    job.notes.write_text(json.dumps(notes))
    return notes


def _validator(answer):
    """What names the version: If-Range takes a strong entity tag or a date."""
    tag = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified")


def _continues(answer, have, notes):
    """Whether the answer is the rest of the version noted."""
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if answer.status_code != 206 or not have or not notes or not span or int(span[1]) != have:
        return False
    same = _validator(answer) in (None, notes["validator"])
    return same and span[2] in ("*", str(notes["size"]))


def _acceptable(job, answer):
    """Raises UserError unless the answer carries (a part of) a file."""
    status = answer.status_code
    if status not in (200, 206, 416):
        passing = status == 429 or status >= 500
        remedy = f"try later, or {ELSEWHERE}" if passing else ELSEWHERE
        raise UserError(f"{job.url} answered {status} {answer.reason}", remedy, WEIGHTS)
    if status != 416 and answer.headers.get("Content-Type", "").startswith("text/html"):
        raise UserError(f"{job.url} answered with a web page, not a file", ELSEWHERE, WEIGHTS)
    hops = [step.url for step in (*answer.history, answer)]
    if job.url.startswith("https:") and any(hop.startswith("http:") for hop in hops):
        raise UserError(f"{job.url} leads to an unprotected address", ELSEWHERE, WEIGHTS)


def _room(job, size, have):
    """Raises UserError if a file of `size` bytes, or None if unknown, may not or cannot be kept."""
    if size is not None and size > job.limit:
        job.forget()
        raise UserError(
            f"{job.url} sends {size} bytes or more, allowed are {job.limit}", ELSEWHERE, WEIGHTS
        )
    if size is not None and size > have and shutil.disk_usage(job.part.parent).free < size - have:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(job.part))


@contextlib.contextmanager
def _network(job):
    """Turns what the network does into a UserError, or `_Broken` where another try may help."""
    import requests
    import urllib3

    try:
        yield
    except (requests.Timeout, urllib3.exceptions.TimeoutError):
        what = f"{job.url}: no answer for {job.timeout:g} seconds; what came is kept"
        raise UserError(what, f"{AGAIN}; --timeout allows more", WEIGHTS) from None
    except requests.TooManyRedirects:
        raise UserError(f"{job.url} leads in circles", ELSEWHERE, WEIGHTS) from None
    except requests.ConnectionError as error:
        reason = " ".join(str(error).split())[:200]
        remedy = f"check the network, or {ELSEWHERE}"
        raise UserError(f"cannot reach {job.url}: {reason}", remedy, WEIGHTS) from None
    except requests.RequestException as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"cannot ask {job.url}: {reason}", ELSEWHERE, WEIGHTS) from None
    except urllib3.exceptions.HTTPError:
        raise _Broken("the connection ended before the file did") from None
