"""A local HTTP server whose behaviour each test chooses, and which counts what it was asked."""

import contextlib
import http.server
import socket
import threading
import time
from typing import Any, NamedTuple


class Page(NamedTuple):
    """What an address answers.

    body: the file.  tag: its ETag.  modified: its Last-Modified.  ranges: honour Range.
    conditional: honour If-Range.  cut: bytes sent of each answer before the connection closes.
    hang: bytes sent before the server falls silent.  length: a false Content-Length.
    status: a status without a file.  to: where to redirect.  kind: Content-Type.
    slow: seconds between two 64 KiB pieces.  encoding: Content-Encoding.
    """

    body: bytes = b""
    tag: Any = '"one"'
    modified: Any = None
    ranges: bool = True
    conditional: bool = True
    cut: Any = None
    hang: Any = None
    length: Any = None
    status: int = 200
    to: Any = None
    kind: str = "application/octet-stream"
    slow: float = 0.0
    encoding: Any = None


class Server:
    """url: its address.  pages: {path: Page}.  asked: (path, Range, If-Range) of each request.

    sent: body bytes written, or about to be, to the requests since the last `forget`.
    """

    def __init__(self):
        self.pages = {}
        self.forget()
        self.closing = threading.Event()
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def forget(self):
        """An answer that still goes on, its reader gone, is not counted any more either."""
        self.asked, self.counted = [], [0]

    @property
    def sent(self):
        return self.counted[0]


@contextlib.contextmanager
def serving():
    """Yields a `Server` that runs in a thread."""
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.http.shutdown()
        thread.join()
        server.http.server_close()


def free_address():
    """An address nobody listens at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def _start(page, headers):
    """The first byte to send: what Range asks, if it is to be honoured."""
    asked = headers.get("Range")
    if not asked or not page.ranges:
        return 0
    condition = headers.get("If-Range")
    if page.conditional and condition and condition not in (page.tag, page.modified):
        return 0
    return int(asked.removeprefix("bytes=").removesuffix("-"))


def _handler(server):
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_GET(self):
            page = server.pages.get(self.path, Page(status=404))
            server.asked.append(
                (self.path, self.headers.get("Range"), self.headers.get("If-Range"))
            )
            with contextlib.suppress(ConnectionError):
                self.answer(page)

        def answer(self, page):
            start = _start(page, self.headers)
            total = len(page.body)
            if page.to or page.status != 200:
                self.send_response(302 if page.to else page.status)
                if page.to:
                    self.send_header("Location", page.to)
                self.send_header("Content-Length", "0")
            elif start >= total > 0:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
            else:
                self.send_response(206 if start else 200)
                self.describe(page, start, total)
            self.end_headers()
            if page.status == 200 and not page.to:
                self.write(page, page.body[start:])

        def describe(self, page, start, total):
            self.send_header("Content-Type", page.kind)
            if page.length is not False:
                self.send_header("Content-Length", str(page.length or total - start))
            if page.encoding:
                self.send_header("Content-Encoding", page.encoding)
            if page.tag:
                self.send_header("ETag", page.tag)
            if page.modified:
                self.send_header("Last-Modified", page.modified)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")

        def write(self, page, body):
            counted = server.counted
            end = min(x for x in (page.cut, page.hang, len(body)) if x is not None)
            for at in range(0, end, 1 << 16):
                piece = body[at : min(at + (1 << 16), end)]
                counted[0] += len(piece)  # before it can be read: a test may look at once
                self.wfile.write(piece)
                time.sleep(page.slow)
                if server.closing.is_set():
                    return
            if page.hang is not None:
                server.closing.wait()

    return Handler
