"""A seller's program with the real client, `Inbox` and SQLite, which ends itself where it is told to.

Each line of its input is a plan. It is carried out in a process of its own, a copy of this one where the system can
copy processes, because importing takes longer than all the rest. Events go out as lines of JSON: `pid`, `at` (it waits
there for a line), `end` (of the program, with the places it was at), `exit` (of the process).
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
from attrs import define, field

from inbox.kill import mutants
from mlmessages import Database, Delivery, Inbox, Limits, MessagesClient, Retry, failpoints
from mlmessages.errors import JournalError
from mlmessages.journal import seats
from mlmessages.postgres import schema, store

IMPORTED = schema, store  # here, and not in each copy of the process

HANGS_AFTER = 60.0


@define
class Places:
    """What happens at the named places: `kill` and `ask` are pairs of a name ("*": any) and an occurrence from 1."""

    kill: list[tuple[str, int]]
    ask: list[tuple[str, int]]
    order: list[str] = field(factory=list)
    _times: Counter[str] = field(factory=Counter)
    _lock: threading.RLock = field(factory=threading.RLock)

    def __call__(self, name: str) -> None:
        with self._lock:
            self.order.append(name)
            self._times.update([name, "*"])
            here = {(name, self._times[name]), ("*", self._times["*"])}
            if here & set(self.kill):
                end_at_once()
            if here & set(self.ask):
                tell(at=name)
                if there := heard():
                    self.kill.append((there, self._times[there] + 1))


def end_at_once() -> None:
    """No goodbye: nothing is flushed, closed or awaited."""
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def tell(**event: Any) -> None:
    """Send one event to the process that started this one."""
    os.write(1, json.dumps(event).encode() + b"\n")


def heard() -> str:
    """The next line of the input, and not a byte more: the copies share it."""
    line = bytearray()
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return line.decode()


class Consumer:
    """Writes each delivery down, durably, before it acknowledges it."""

    def __init__(self, out: Path, *, acks_first: bool) -> None:
        self._file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._acks_first = acks_first

    async def take(self, delivery: Delivery) -> None:
        if self._acks_first:
            await delivery.ack()
        line = {
            "pack": delivery.pack_id,
            "ids": [row.id for row in delivery.messages],
            "unread": [row.id for row in delivery.unread],
            "redelivered": delivery.redelivered,
        }
        os.write(self._file, json.dumps(line).encode() + b"\n")
        os.fsync(self._file)
        failpoints.failpoint("handled")
        await delivery.ack()


async def drain(plan: dict[str, Any]) -> None:
    """The program: all unread conversations, to the end."""
    consumer = Consumer(Path(plan["out"]), acks_first=plan["mutant"] == "acknowledged before it is handled")
    async with (
        aiohttp.ClientSession(trace_configs=[_trace()], cookie_jar=aiohttp.DummyCookieJar()) as session,
        MessagesClient(
            plan["token"],
            seller_id=plan["seller_id"],
            base_url=plan["base_url"],
            limits=Limits(reads=plan["reads"], per_second=None),
            retry=Retry(base=0.01),
            timeout=plan["timeout"],
            session=session,
        ) as client,
        contextlib.AsyncExitStack() as stack,
    ):
        inbox = await _entered(stack, client, plan)
        async for delivery in inbox.drain():
            await consumer.take(delivery)
            failpoints.failpoint(f"done with {delivery.pack_id}")


async def _entered(stack: contextlib.AsyncExitStack, client: MessagesClient, plan: dict[str, Any]) -> Inbox:
    """An inbox on a file; or on a database, when the lease of a program that was killed is over."""
    where: Any = plan["journal"]
    if "database" in plan:
        seats.SECOND_LOOK = plan["second_look"]  # type: ignore[misc]
        database = Database(plan["database"], key=None, name=f"pid {os.getpid()}", lease=plan["lease"])
        where = await stack.enter_async_context(database)
    options = {name: plan[name] for name in ("settle_time", "concurrency", "limit")}
    while True:
        try:
            return await stack.enter_async_context(Inbox(client, where, **options))
        except JournalError as error:
            if "is held by worker" not in str(error) or not plan.get("waits"):
                raise
            await asyncio.sleep(0.05)


def _trace() -> aiohttp.TraceConfig:
    async def sent(
        session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestHeadersSentParams
    ) -> None:
        name = "listing sent" if params.url.path.endswith("/unread") else "GET sent"
        # In the next turn of the loop: aiohttp has written the bytes by then.
        asyncio.get_running_loop().call_soon(failpoints.failpoint, name)

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(sent)
    return trace


def carry_out(plan: dict[str, Any]) -> None:
    """One life of the program."""
    faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
    places = Places([tuple(where) for where in plan["kill"]], [tuple(where) for where in plan["ask"]])
    failpoints.hook = places
    tell(pid=os.getpid())
    mutants.install(plan["mutant"], Path(plan["journal"]))
    end = "drained"
    try:
        asyncio.run(drain(plan))
    except JournalError as error:
        end = f"JournalError: {error}"
    tell(end=end, places=places.order)


def main() -> None:
    if sys.argv[1:]:
        carry_out(json.loads(sys.argv[1]))
        return
    while plan := heard():
        if hasattr(os, "fork"):
            pid = os.fork()
            if not pid:
                with contextlib.suppress(KeyboardInterrupt):
                    carry_out(json.loads(plan))
                    os._exit(0)
                os._exit(1)
            tell(exit=os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        else:
            tell(exit=subprocess.run([sys.executable, __file__, plan], check=False).returncode)


if __name__ == "__main__":
    main()
