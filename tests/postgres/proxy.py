"""A TCP proxy that can go silent, one way or both, and cut: a network between a worker and its database."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Proxy:
    """Passes bytes on to a port of this machine, while it is told to."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._passes = {"up": threading.Event(), "down": threading.Event()}
        self._lines: list[socket.socket] = []
        self._over = False
        self.heal()
        threading.Thread(target=self._accept, daemon=True).start()

    def silence(self, *ways: str) -> None:
        """What is sent `up` to the server, or `down` from it, stays here; the lines stay open."""
        for way in ways or ("up", "down"):
            self._passes[way].clear()

    def heal(self) -> None:
        """Pass everything on, also what was kept."""
        for event in self._passes.values():
            event.set()

    def cut(self) -> None:
        """Close every line."""
        lines, self._lines = self._lines, []
        for line in lines:
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it."""
        self._over = True
        self.heal()
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while not self._over:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                continue
            self._lines += [client, server]
            for source, sink, way in ((client, server, "up"), (server, client, "down")):
                threading.Thread(target=self._pass, args=(source, sink, way), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, way: str) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._passes[way].wait()
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
