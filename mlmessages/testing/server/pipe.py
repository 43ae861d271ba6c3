"""A connection in memory: two asyncio transports, each of which hands what is written to the other's protocol."""

from __future__ import annotations

import asyncio

_HIGH_WATER = 65536


class Pipe(asyncio.Transport):
    """One end: what is written is read at the other end on the loop's next turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop = loop
        self._protocol = protocol
        self._other: Pipe | None = None
        self._unread = bytearray()
        self._flush_due = False
        self._reading = True
        self._writing_paused = False
        self._closing = False

    # -- between the two ends

    def attach(self, other: Pipe) -> None:
        """Name the end that is written to."""
        self._other = other

    def deliver(self, data: bytes) -> None:
        """Take what the other end wrote."""
        self._protocol.data_received(data)

    def end_of_stream(self) -> None:
        """Take the end of what the other end writes."""
        self._protocol.eof_received()

    def lose(self, error: Exception | None) -> None:
        """Lose the connection."""
        self._closing = True
        self._other = None
        self._loop.call_soon(self._protocol.connection_lost, error)

    def flush_soon(self) -> None:
        """Hand over what was written, on the loop's next turn."""
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        if self._other is not None and self._unread and self._other.is_reading():
            data = bytes(self._unread)
            self._unread.clear()
            self._other.deliver(data)
            if self._writing_paused and not self._unread:
                self._writing_paused = False
                self._protocol.resume_writing()
        if self._other is not None and self._closing and (not self._unread or self._other.is_closing()):
            self._other.end_of_stream()
            self._part(None)

    def _part(self, felt_there: Exception | None) -> None:
        other = self._other
        if other is not None:
            self.lose(None)
            other.lose(felt_there)

    # -- asyncio.Transport: writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Buffer it for the other end; after a close it is dropped."""
        if self._closing:
            return
        self._unread += data
        self.flush_soon()
        if len(self._unread) > _HIGH_WATER and not self._writing_paused:
            self._writing_paused = True
            self._protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the other end has not read."""
        return len(self._unread)

    def can_write_eof(self) -> bool:
        """HTTP needs no half-closed connections."""
        return False

    # -- asyncio.Transport: reading

    def pause_reading(self) -> None:
        """Leave what arrives in the other end's buffer."""
        self._reading = False

    def resume_reading(self) -> None:
        """Take what arrives again."""
        self._reading = True
        if self._other is not None:
            self._other.flush_soon()

    def is_reading(self) -> bool:
        """Whether something can be delivered here."""
        return self._reading and not self._closing

    # -- asyncio.Transport: the end

    def close(self) -> None:
        """Hand over what was written, then close both ends."""
        if not self._closing:
            self._closing = True
            self.flush_soon()

    def abort(self) -> None:
        """Break off: the other end sees a reset."""
        self._closing = True
        self._part(ConnectionResetError("Connection reset by peer"))

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Name the protocol that reads here from now on."""
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol that reads here."""
        return self._protocol


def join(loop: asyncio.AbstractEventLoop, client: asyncio.Protocol, server: asyncio.Protocol) -> None:
    """Connect two protocols."""
    near, far = Pipe(loop, client), Pipe(loop, server)
    near.attach(far)
    far.attach(near)
    server.connection_made(far)
    client.connection_made(near)
