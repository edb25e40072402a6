"""A real HTTP server on loopback that says what a test scripts."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Said:
    """One response: its status, body and headers, after how long; or a cut connection."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    after: float = 0.0
    cut: bool = False


class ScriptedServer:
    """Says the next of ``script`` as long as there is one, then what ``usual`` makes of a path and a body."""

    usual: Callable[[str, dict[str, Any]], Said]

    def __init__(self) -> None:
        self.script: list[Said] = []
        self.keys: set[str] = set()
        self.lock = threading.Lock()
        self._port = 0
        self._http: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def answer(self, path: str, body: dict[str, Any]) -> Said:
        """Return what is said to a request."""
        with self.lock:
            if self.script:
                return self.script.pop(0)
        return self.usual(path, body)

    def start(self) -> None:
        """Listen, at the same port as before if there was one."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.say(server.answer(self.path, {}))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                server.keys.add(self.headers["authorization"])
                self.say(server.answer(self.path, body))

            def say(self, said: Said) -> None:
                time.sleep(said.after)
                try:
                    if said.cut or server._http is None:
                        self.close_connection = True
                        self.connection.shutdown(socket.SHUT_RDWR)
                        return
                    self.send_response(said.status)
                    for name, value in {"content-type": "application/json", **said.headers}.items():
                        self.send_header(name, value)
                    self.send_header("content-length", str(len(said.body)))
                    self.end_headers()
                    self.wfile.write(said.body)
                except OSError:  # whoever asked is gone
                    self.close_connection = True

            def log_message(self, *arguments: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # whoever asked is gone

        self._http = Server(("127.0.0.1", self._port), Handler)
        self._port = self._http.server_port
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        """Listen no more; connections that are open are cut at their next request."""
        if self._http is not None:
            http, self._http = self._http, None
            http.shutdown()
            http.server_close()
