"""An HTTP server on the loopback interface that serves bytes as GitHub and the hub do, and fails as asked."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class FileServer:
    """Files by path; `faults` are taken one for each request that gets a file, in their order.

    A fault is a status, a number of bytes in brackets after which the connection ends, or None.
    """

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.faults: list[Any] = []
        self.ranges = True
        self.tags = True
        self.requests: list[tuple[str, str, str | None]] = []
        """Method, path and range of each request."""

    def sent_ranges(self) -> list[str | None]:
        """Ranges of the requests for contents."""
        return [asked for method, path, asked in self.requests if method == "GET" and path not in self.redirects]


@contextmanager
def serving() -> Iterator[FileServer]:
    """Serve until the end of the block."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server = FileServer(http.server_port)
    http.files = server  # pyright: ignore[reportAttributeAccessIssue]
    thread = Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def _answer(self, *, with_content: bool) -> None:
        server: FileServer = self.server.files  # pyright: ignore[reportAttributeAccessIssue]
        path = self.path.partition("?")[0]
        server.requests.append((self.command, path, self.headers.get("Range")))
        if path in server.redirects:
            self._head(302, {"Location": server.redirects[path]})
        elif path not in server.files:
            self._head(404, {"X-Error-Code": "EntryNotFound"})
        else:
            fault = server.faults.pop(0) if with_content and server.faults else None
            if isinstance(fault, int):
                self._head(fault, {})
            else:
                self._send(server, server.files[path], with_content, None if fault is None else fault[0])

    def _send(self, server: FileServer, content: bytes, with_content: bool, cut: int | None) -> None:
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        headers = {"ETag": tag, "X-Repo-Commit": "0" * 40} if server.tags else {}
        start = self._start(server, tag)
        if start >= len(content):
            self._head(416, {"Content-Range": f"bytes */{len(content)}"})
            return
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._head(206 if start else 200, headers | {"Content-Length": str(len(content) - start)})
        if with_content:
            self.wfile.write(content[start:] if cut is None else content[start : start + cut])

    def _start(self, server: FileServer, tag: str) -> int:
        """First byte that is asked for, if ranges are supported and the file is the same."""
        found = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range", tag) == tag
        return int(found[1]) if found and server.ranges and same else 0

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
