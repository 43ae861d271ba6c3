"""The protocol of the Inbox as a pure transition system: one conversation, and all that can happen to it.

A `World` is everything that exists at one moment: the server, what is on the disk, what is in the memory of the
process, what is on the wire. `steps` gives every world that can come next, each with the name of what happens. Sets of
messages are bit masks; message 0 is the oldest. How a conversation is walked is the library's own `Walk`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from attrs import evolve, frozen

from mlmessages.api.paging import PageWalk
from mlmessages.models import Message, MessagePage, Paging

PAGE = 2  # messages on a page: four messages make three pages, each with one row of the page before it

# Where a worker is.
IDLE, CLAIMED, SENT, ANSWERED, READING, READ, CLOSED, STORED = (
    "idle",
    "claimed",
    "sent",
    "answered",
    "reading",
    "read",
    "closed before its ids",
    "ids before its mark",
)

# What the journal says of the conversation.
NONE, OPEN, ISSUED, WAITING, DONE = "none", "open", "issued", "waiting", "done"


class Page(NamedTuple):
    """What one GET showed: the ids, newest first; how many there were in all; which of them showed as read."""

    offset: int
    rows: tuple[int, ...]
    total: int
    read: int


class Worker(NamedTuple):
    """A task that reads the conversation: how far it is, and what the pages have shown."""

    at: str = IDLE
    pages: tuple[Page, ...] = ()
    behind: bool = False  # its marking answer could not be read, and the page was read again from a stale replica


class World(NamedTuple):
    """Everything there is at one moment."""

    # the server
    sent: int = 0  # messages that the buyer wrote
    read: int = 0  # those that are marked as read
    # the disk of the client, and the consumer's own
    row: str = NONE
    stored: int = 0  # ids that are known
    acked: int = 0  # those whose bodies are gone
    handled: int = 0  # what the consumer has done, for good
    # the memory of the client
    workers: tuple[Worker, ...] = (Worker(),)
    in_hand: int = 0  # what the consumer is working on
    # the wire
    late: int = 0  # marking GETs that were given up, and that may still be executed
    # what went wrong so far
    crashes: int = 0
    losses: int = 0
    delays: int = 0
    unreadable: int = 0


@frozen
class Rules:
    """The protocol, and each way to weaken it; the faults that may happen."""

    journal: bool = True
    marks_and_reads: bool = True  # False: peek, then mark, and drop the marking answer
    new_by_id: bool = True  # False: what shows as read is not new
    waits: bool = True  # False: what timed out is sent again at once
    first_page_marks: bool = True  # False: every page does
    ids_with_done: bool = True  # False: DONE, then the ids
    claims: bool = True  # False: a worker that finds the row open reads it
    waits_after_crash: bool = True  # False: the claim of a dead process is free
    acks_last: bool = True  # False: acknowledged, then handled
    reads_again: bool = True  # False: done with the re-read of an unreadable answer
    workers: int = 2
    messages: int = 4
    crashes: int = 2
    losses: int = 2
    delays: int = 2
    unreadable: int = 1

    def first(self) -> World:
        """The world before anything happens."""
        return World(workers=(Worker(),) * self.workers)


PROTOCOL = Rules()

# What each rule is for: without it there is a way to lose a message.
WEAKENED = {
    "no journal": evolve(PROTOCOL, journal=False),
    "peek then mark, answer dropped": evolve(PROTOCOL, marks_and_reads=False),
    "newness by `read`": evolve(PROTOCOL, new_by_id=False),
    "immediate retry after a timeout": evolve(PROTOCOL, waits=False),
    "marking every page": evolve(PROTOCOL, first_page_marks=False),
    "DONE before the ids": evolve(PROTOCOL, ids_with_done=False),
    "two workers without a claim": evolve(PROTOCOL, claims=False),
    "a dead claim is free": evolve(PROTOCOL, waits_after_crash=False),
    "acknowledged before it is handled": evolve(PROTOCOL, acks_last=False),
    "done with a re-read that may be behind": evolve(PROTOCOL, reads_again=False),
}


def everything(world: World) -> int:
    """All messages that exist."""
    return (1 << world.sent) - 1


def undelivered(world: World) -> int:
    """What is stored and not acknowledged."""
    return world.stored & ~world.acked


def at_rest(world: World) -> bool:
    """True if no worker is busy and nothing is owed: without a new message there is no further read."""
    return (
        world.row in (NONE, DONE)
        and not world.in_hand
        and not undelivered(world)
        and all(worker.at == IDLE for worker in world.workers)
    )


def lost(world: World) -> int:
    """Messages that the server shows as read, that the consumer never had, and that no read will show."""
    return world.read & ~world.handled if at_rest(world) else 0


def left(world: World) -> int:
    """What the consumer never had, where nothing is left to do."""
    return everything(world) & ~world.handled


def steps(world: World, rules: Rules) -> Iterator[tuple[str, World]]:
    """Everything that can happen next."""
    if world.sent < rules.messages:
        yield "buyer writes", world._replace(sent=world.sent + 1)
    yield from faults(world, rules)
    yield from progress(world, rules)


def faults(world: World, rules: Rules) -> Iterator[tuple[str, World]]:
    """What goes wrong."""
    if world.late:
        yield "late GET executed", world._replace(late=world.late - 1, read=everything(world))
        yield "late GET vanishes", world._replace(late=world.late - 1)
    if world.crashes < rules.crashes:
        yield from _crash(world, rules)
    if world.losses < rules.losses:
        for number, worker in enumerate(world.workers):
            if worker.at in (SENT, ANSWERED, READING):
                hit = world._replace(losses=world.losses + 1)
                yield f"w{number} answer lost", _unknown(hit, number, rules)
                if worker.at == SENT and world.delays < rules.delays:
                    late = hit._replace(late=world.late + 1, delays=world.delays + 1)
                    yield f"w{number} times out, GET still on its way", _unknown(late, number, rules)
    if world.unreadable < rules.unreadable and rules.marks_and_reads:
        for number, worker in enumerate(world.workers):
            if worker.at == SENT:
                yield from _unreadable(world, number, rules)


def _unreadable(world: World, number: int, rules: Rules) -> Iterator[tuple[str, World]]:
    """The marking GET is executed; its answer cannot be read, and the page is read again from a replica that is behind."""
    for behind in range(1, min(world.sent, PAGE) + 1):
        page = _page(world._replace(sent=world.sent - behind), 0, rules)
        shown = Worker(READ if walk((page,))[0] else READING, (page,), behind=True)
        changes = {"read": everything(world), "unreadable": world.unreadable + 1}
        yield f"w{number} unreadable, read again {behind} behind", _set(world, number, shown, **changes)


def progress(world: World, rules: Rules) -> Iterator[tuple[str, World]]:
    """What the client, the server and the consumer do by themselves."""
    yield from _consumer(world, rules)
    if world.row == WAITING and not world.late:  # settle_time: nothing is executed after it
        yield "settle time over", world._replace(row=OPEN)
    idle = all(worker.at == IDLE for worker in world.workers)
    if idle and world.row in (NONE, DONE) and everything(world) & ~world.read:
        yield "listed", world._replace(row=OPEN)
    for number, worker in enumerate(world.workers):
        if worker == Worker() and number and world.workers[number - 1] == Worker():
            continue  # two who do nothing are one and the same
        yield from ((f"w{number} {name}", after) for name, after in _work(world, number, worker, rules))


def _work(world: World, number: int, worker: Worker, rules: Rules) -> Iterator[tuple[str, World]]:
    if worker.at == IDLE:
        if world.row == OPEN:
            begun = Worker(CLAIMED if rules.marks_and_reads else READING)
            yield "claims", _set(world, number, begun, row=ISSUED if rules.claims else OPEN)
    elif worker.at == CLAIMED:
        yield "sends the marking GET", _set(world, number, Worker(SENT))
    elif worker.at == SENT:
        page = _page(world, 0, rules)
        yield "GET executed", _set(world, number, Worker(ANSWERED, (page,)), read=everything(world))
    elif worker.at == ANSWERED:
        if rules.marks_and_reads:
            following = Worker(READ if walk(worker.pages)[0] else READING, worker.pages)
        else:
            following = Worker(CLOSED)  # what the answer showed is dropped
        yield "has the answer", _set(world, number, following)
    elif worker.at == READING:
        yield "reads a page", _read_on(world, number, worker, rules)
    else:
        yield from _store(world, number, worker, rules)


def _read_on(world: World, number: int, worker: Worker, rules: Rules) -> World:
    pages = (*worker.pages, _page(world, walk(worker.pages)[1], rules))
    read = world.read if rules.first_page_marks else everything(world)
    return _set(world, number, Worker(READ if walk(pages)[0] else READING, pages, worker.behind), read=read)


def _store(world: World, number: int, worker: Worker, rules: Rules) -> Iterator[tuple[str, World]]:
    shown = 0
    for page in worker.pages:
        shown |= sum(1 << row for row in page.rows) & ~(0 if rules.new_by_id else page.read)
    known = world.stored | shown
    if worker.at == CLOSED:
        yield "stores the ids", _set(world, number, Worker(), stored=known, row=DONE)
    elif not rules.marks_and_reads:
        yield "stores the ids, to mark then", _set(world, number, Worker(CLAIMED), stored=known)
    elif worker.behind and rules.reads_again:
        yield "stores the ids, to read once more", _set(world, number, Worker(), stored=known, row=WAITING)
    elif not rules.ids_with_done:
        yield "says DONE", _set(world, number, Worker(CLOSED, worker.pages), row=DONE)
    else:
        yield "stores the ids and DONE", _set(world, number, Worker(), stored=known, row=DONE)


def _consumer(world: World, rules: Rules) -> Iterator[tuple[str, World]]:
    if not world.in_hand:
        if bodies := undelivered(world):
            acked = world.acked if rules.acks_last else world.acked | bodies
            yield "delivered", world._replace(in_hand=bodies, acked=acked)
    elif world.in_hand & ~world.handled:
        after = world.in_hand if rules.acks_last else 0
        yield "handled", world._replace(handled=world.handled | world.in_hand, in_hand=after)
    else:
        yield "acknowledged", world._replace(acked=world.acked | world.in_hand, in_hand=0)


def _unknown(world: World, number: int, rules: Rules) -> World:
    """A worker does not know whether its GET was executed."""
    if not rules.marks_and_reads and world.workers[number].at == READING:
        return _set(world, number, Worker(), row=OPEN)  # only a peek
    if not rules.waits:
        return _set(world, number, Worker(CLAIMED))
    return _set(world, number, Worker(), row=WAITING)


def _crash(world: World, rules: Rules) -> Iterator[tuple[str, World]]:
    """The process dies; what it has sent is the wire's now."""
    on_the_wire = sum(worker.at == SENT for worker in world.workers)
    row = world.row
    if row == ISSUED or (row == OPEN and not rules.claims):
        row = WAITING if rules.waits_after_crash else OPEN
    dead = world._replace(workers=(Worker(),) * len(world.workers), in_hand=0, row=row, crashes=world.crashes + 1)
    if not rules.journal:
        dead = dead._replace(row=NONE, stored=0, acked=0)
    yield "crash", dead
    if on_the_wire and world.delays + on_the_wire <= rules.delays:
        delays = world.delays + on_the_wire
        yield "crash, GET still on its way", dead._replace(late=world.late + on_the_wire, delays=delays)


def _set(world: World, number: int, worker: Worker, **changes: object) -> World:
    workers = (*world.workers[:number], worker, *world.workers[number + 1 :])
    return world._replace(workers=workers, **changes)  # type: ignore[arg-type]


def _page(world: World, offset: int, rules: Rules) -> Page:
    rows = tuple(range(world.sent - 1, -1, -1))[offset : offset + PAGE]
    return Page(offset, rows, world.sent, 0 if rules.new_by_id else world.read)


@cache
def walk(pages: tuple[Page, ...]) -> tuple[bool, int]:
    """Whether the library's walk through these pages is over, and where it asks next."""
    way = PageWalk(PAGE)
    for page in pages:
        messages = tuple(Message(f"m{row}") for row in page.rows)
        way.take(MessagePage("1", Paging(PAGE, page.offset, page.total), None, messages))
    return way.done, way.offset
