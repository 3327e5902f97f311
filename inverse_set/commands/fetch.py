"""`inverse-set fetch`: from a network's name to its weights, as we keep them, on this machine."""

import contextlib
import hashlib
import re
import sys
import time

from inverse_set import disk
from inverse_set.commands import progress, signals
from inverse_set.convert import download, home, released, unpack
from inverse_set.errors import INTERRUPTED, UserError, WeightError, shown

MOST = 1 << 32  # bytes of a file whose size we do not know


def main(values, arguments):
    """Downloads, checks, unpacks, converts; returns the exit code.

    values: flags source, url, timeout, overwrite.  arguments: the network's name alone.
    """
    row = _chosen(arguments, values.source)
    if not values.timeout > 0:
        raise UserError(f"--timeout={values.timeout} is not above 0", "it counts seconds")
    destination = home.weights(row.network)
    if destination.exists() and not values.overwrite:
        print(f"{row.network} is here already: {shown(destination)}\n--overwrite fetches it again")
        return 0
    path = home.downloads() / row.file
    url = values.url or row.url
    checksum = row.checksum or _recorded(path)
    _introduce(row, url)
    if path.exists():
        print(f"an earlier download is here and used if it fits: {shown(path)}", flush=True)
    try:
        with signals.interrupting(), _alone(row, path):
            _get(row, url, path, checksum, values.timeout)
            _warn(row, path)
            _convert(row, path, destination)
    except KeyboardInterrupt:
        raise UserError("interrupted; what came is kept", download.AGAIN, INTERRUPTED) from None
    print(f"written to {shown(destination)}")
    return 0


def _chosen(arguments, source):
    """The row of the table that was asked for."""
    if len(arguments) != 1 or arguments[0] not in released.NETWORKS:
        names = ", ".join(released.NETWORKS)
        given = " ".join(map(repr, arguments)) or "nothing"
        raise UserError(f"fetch takes one network, not {given}", f"choose among: {names}")
    rows = released.rows(arguments[0])
    if source is None:
        return rows[0]
    for row in rows:
        if source in (row.name, row.url):
            return row
    raise UserError(
        f"{arguments[0]} has no source {source!r}",
        f"choose among: {', '.join(row.name for row in rows)}; for a mirror use --url",
    )


def _introduce(row, url):
    """Says what is about to be fetched, and how little is known about it."""
    size = f"about {row.size / 1e6:.0f} MB" if row.size else "size unknown"
    print(f"{row.name} from {shown(url)}, {size}\n{row.terms}", flush=True)
    if row.checksum:
        return
    alarm = f"WARNING: no checksum of {row.file} was ever published: it may be ANY file"
    if url.startswith("http:"):
        alarm += (
            "\nWARNING: and its address is PLAIN HTTP: anyone between here and there can change it"
        )
    print(alarm, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _alone(row, path):
    """No other command fetches the same file meanwhile."""
    with contextlib.ExitStack() as stack:
        with download.disk(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(disk.alone(path.with_name(f".{path.name}.lock")))
            except BlockingIOError:
                raise UserError(
                    f"another command is fetching {row.file}", "wait for it, or end it"
                ) from None
        yield


def _get(row, url, path, checksum, timeout):
    """Downloads to `path`; names the record to delete where ours and no published one differs."""
    limit = 2 * row.size if row.size else MOST
    try:
        with progress.reporting() as report, signals.interrupting():
            told = _throttled(report, row.size)
            download.download(url, path, checksum, timeout, limit, told)
    except download.WrongFile as error:
        if row.checksum:
            raise
        remedy = f"{_record(path)} keeps the SHA-256 of an earlier download; delete it to forget it"
        raise UserError(error.what, remedy, error.code) from None


def _throttled(report, expected):
    """A callback for `download`: megabytes to `report`, now and then."""
    pause = 0.2 if sys.stderr.isatty() else 5.0
    began = last = time.monotonic() - pause

    def told(done, total):
        nonlocal last
        now = time.monotonic()
        if now - last < pause and done != total:
            return
        last = now
        whole = total or expected or done
        seconds = max(now - began - pause, 1e-3)
        note = f"MB, {seconds:.0f} s" if total else f"MB or so, {seconds:.0f} s"
        report("download", round(done / 1e6, 1), round(whole / 1e6, 1), note)

    return told


def _record(path):
    return path.with_name(f"{path.name}.sha256")


def _recorded(path):
    """The SHA-256 of an earlier download that could be converted, or None."""
    try:
        text = _record(path).read_text()
    except FileNotFoundError:
        return None
    found = re.match("[0-9a-f]{64}", text)
    if not found:
        raise UserError(f"{_record(path)} holds no SHA-256", "delete it")
    return f"sha256:{found[0]}"


def _warn(row, path):
    """Where no checksum was published, says what came, to compare with what others got."""
    if not row.checksum:
        print(f"SHA-256 of {row.file}: {_sha256(path)}", file=sys.stderr, flush=True)


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _convert(row, path, destination):
    """Unpacks and converts; a download is vouched for once it has been of use."""
    with download.disk(destination.parent):
        destination.parent.mkdir(parents=True, exist_ok=True)
    source = path
    print(f"converting {row.file}", file=sys.stderr, flush=True)
    try:
        if row.member:
            source = path.with_name(f"{row.name}-{row.member.rpartition('/')[2]}")
            unpack.extract(path, row.member, source, MOST)
        converted(source, destination, row.network)
    except WeightError as error:
        remedy = f"delete {path} to download it again, or try another --source"
        raise WeightError(error.path, error.wrong, error.layer, error.offset, remedy) from error
    finally:
        if row.member:
            source.unlink(missing_ok=True)
    if not row.checksum:
        with download.disk(path.parent):
            _record(path).write_text(f"{_sha256(path)}  {row.file}\n")


def converted(source, destination, network):
    """Converts a released file into our weights."""
    from inverse_set.convert import converting

    converting.convert(source, destination, network)
