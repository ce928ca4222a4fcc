"""What the servers of the tests share: they run in a thread, and hang up on every client when they stop."""

import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class LocalServer:
    """A server on localhost, running as long as the context lasts.

    Args:
        handler: Answers requests; puts its connections into `connections`.
        lock: Held where the connections are touched.
    """

    def __init__(self, handler: type[BaseHTTPRequestHandler], lock: "threading.Lock | threading.RLock"):
        self.lock = lock
        self.connections: set[socket.socket] = set()
        self._http = _Http(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Any:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        with self.lock:
            # A client keeps its connections open, and would otherwise still be answered on them.
            for connection in self.connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # many clients at once must not wait for a second try at connecting
