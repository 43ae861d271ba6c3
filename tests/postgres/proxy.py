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
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def silence(self, *ways: str) -> None:
        """What is sent `up` to the server, or `down` from it, stays here; the lines stay open."""
        for way in ways or ("up", "down"):
            self._passes[way].clear()

    def heal(self) -> None:
        """Pass everything on, also what was kept."""
        for event in self._passes.values():
            event.set()

    def lead_to(self, port: int) -> None:
        """Another server, for the next lines."""
        self._to = port

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
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while not self._over:
            try:
                client, _ = self._listener.accept()
            except OSError:
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._to))
            except OSError:  # it is down
                client.close()
                continue
            self._lines += [client, server]
            threading.Thread(target=self._join, args=(client, server), daemon=True).start()

    def _join(self, client: socket.socket, server: socket.socket) -> None:
        other = threading.Thread(target=self._pass, args=(server, client, "down"), daemon=True)
        other.start()
        self._pass(client, server, "up")
        other.join()
        client.close()
        server.close()

    def _pass(self, source: socket.socket, sink: socket.socket, way: str) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._passes[way].wait()
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
