"""Unpacks one file of an archive that is not trusted."""

import contextlib
import gzip
import os
import stat
import tarfile
import zipfile
import zlib

from inverse_set.convert import signatures
from inverse_set.convert.download import CHUNK, disk
from inverse_set.errors import WeightError


class _Guarded(gzip.GzipFile):
    """Refuses the huge reads by which a forged header makes tarfile fill the memory."""

    def read(self, size=-1):
        if not 0 <= size <= 1 << 20:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)


def extract(archive, member, destination, limit):
    """Writes the file whose path in the archive ends in `member` to `destination`.

    archive: a .zip or .tar.gz.  limit: bytes allowed.  No name in the archive is ever written to.
    """
    partial = destination.with_name(f"{destination.name}.part")
    zipped = zipfile.is_zipfile(archive)
    signatures.check(archive, ".zip" if zipped else ".gz")
    opened = _zipped if zipped else _tarred
    with disk(destination.parent):
        try:
            with opened(archive, f"/{member}") as (source, size), open(partial, "wb") as file:
                if size > limit:
                    raise WeightError(archive, f"{member} has {size} bytes, allowed are {limit}")
                while chunk := source.read(min(CHUNK, size - file.tell())):
                    file.write(chunk)
                if file.tell() != size:
                    raise WeightError(archive, f"{member} ends after {file.tell()} of {size} bytes")
            os.replace(partial, destination)
        except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError) as error:
            raise WeightError(archive, f"broken archive: {error}") from None
        except (zlib.error, ValueError, RuntimeError) as error:
            raise WeightError(archive, f"cannot be unpacked: {error}") from None
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _zipped(archive, ending):
    with zipfile.ZipFile(archive) as opened:
        for item in opened.infolist():
            kind = stat.S_IFMT(item.external_attr >> 16)
            if f"/{item.filename}".endswith(ending) and kind in (0, stat.S_IFREG):
                with opened.open(item) as source:
                    yield source, item.file_size
                return
    raise WeightError(archive, f"holds no regular file ...{ending}")


@contextlib.contextmanager
def _tarred(archive, ending):
    with _Guarded(archive) as plain, tarfile.open(fileobj=plain, mode="r:") as opened:
        for item in opened:
            if f"/{item.name}".endswith(ending) and item.isreg():
                yield opened.extractfile(item), item.size
                return
    raise WeightError(archive, f"holds no regular file ...{ending}")
