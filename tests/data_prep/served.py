"""A real server of files on this machine, which cuts off, fails and forgets as a test says."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CONTENT = bytes(range(256)) * 2000


@dataclass
class Served:
    """What the server does at one path."""

    content: bytes = CONTENT
    status: int = 200
    etag: str = '"v1"'
    ranges: bool = True
    stop_after: list[int] = field(default_factory=list)
    fail_with: list[int] = field(default_factory=list)
    pause: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        served = self.server.paths.get(self.path.partition("?")[0], self.server.elsewhere)
        asked, version = self.headers.get("Range"), self.headers.get("If-Range")
        self.server.asked.append((self.path, asked, version))
        time.sleep(served.pause)
        status, first, total = served.fail_with.pop(0) if served.fail_with else served.status, 0, len(served.content)
        if status == 200 and served.ranges and asked and version == served.etag:
            first = int(asked.removeprefix("bytes=").rstrip("-"))
            status = 206 if first < total else 416
        rest = served.content[first:] if status in (200, 206) else b""
        self.send_response(status)
        if status in (206, 416):
            span = f"{first}-{total - 1}/{total}" if status == 206 else f"*/{total}"
            self.send_header("Content-Range", f"bytes {span}")
        for name, value in {"ETag": served.etag, "Content-Length": str(len(rest)), **served.headers}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if served.stop_after:
            self.close_connection, rest = True, rest[: served.stop_after.pop(0)]
        self.wfile.write(b"" if self.command == "HEAD" else rest)

    do_HEAD = do_GET


@contextlib.contextmanager
def serving() -> Iterator[Any]:
    """Yield a server: ``paths`` says what it does, ``elsewhere`` what at others, ``asked`` what it was asked."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.paths, running.asked, running.elsewhere = {}, [], Served(status=404)
        running.url = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()
