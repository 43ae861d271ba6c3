"""The protocol of many machines as a pure transition system: one conversation, two machines, a seat with epochs.

How a conversation is walked is not looked at here (`protocol` does that): one GET shows and marks all of it. What is: a
machine is stopped at any point for longer than its lease, or dies; another takes the seat over; what the first one has
checked, it sends when it wakes; what it has read, it stores. Sets of messages are bit masks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from attrs import evolve, frozen

# Where a machine is with the conversation.
IDLE, CLAIMED, CHECKED, SENT, ANSWERED = "idle", "claimed", "checked", "sent", "answered"

# What the database says of the conversation. WAITING: `settle_time` from the end of the old lease. AGAIN: a second look
# is due a quarter of an hour after a takeover.
NONE, OPEN, ISSUED, WAITING, AGAIN, DONE = "none", "open", "issued", "waiting", "again", "done"


class Machine(NamedTuple):
    """One process: what it believes, and how far it is."""

    epoch: int = 0  # of the seat that it believes to hold; 0: it holds none
    at: str = IDLE
    shown: int = 0  # by the answer that it has
    in_hand: int = 0  # what its consumer is working on
    stopped: bool = False  # for longer than its lease


class World(NamedTuple):
    """Everything there is at one moment."""

    # the server
    sent: int = 0
    read: int = 0
    # the database, and what the consumer has done for good
    row: str = NONE
    again: bool = False  # the read that is owed is to be repeated
    epoch: int = 0
    holder: int = -1
    stored: int = 0
    acked: int = 0
    handled: int = 0
    # the machines
    machines: tuple[Machine, ...] = (Machine(), Machine())
    # the wire
    late: int = 0
    # what went wrong so far
    crashes: int = 0
    stops: int = 0
    losses: int = 0


@frozen
class Rules:
    """The protocol, and each way to weaken it; the faults that may happen."""

    done_is_fenced: bool = True
    late_answers: bool = True  # False: what a machine without the seat has read is dropped
    second_look: bool = True
    waits: bool = True  # False: a takeover reads at once
    early_looks_add: bool = True  # False: a read before the second look is due stands for it
    acks_last: bool = True
    checks_last: bool = True  # False: the lease is looked at before the claim alone
    messages: int = 3
    crashes: int = 2
    stops: int = 2
    losses: int = 1

    def first(self) -> World:
        """The world before anything happens."""
        return World()


PROTOCOL = Rules()

# Without these a message can be lost.
WEAKENED = {
    "DONE is not fenced": evolve(PROTOCOL, done_is_fenced=False),
    "neither late answers nor a second look": evolve(PROTOCOL, late_answers=False, second_look=False),
    "late answers, no second look": evolve(PROTOCOL, second_look=False),
    "the lease is checked before the claim alone": evolve(PROTOCOL, checks_last=False),
    "an early look stands for the second": evolve(PROTOCOL, early_looks_add=False),
    "acknowledged before it is handled": evolve(PROTOCOL, acks_last=False),
}

# These are for speed: what they bring comes later without them.
SLOWER = {
    "a second look, late answers dropped": evolve(PROTOCOL, late_answers=False),
    "no wait at a takeover, a second look": evolve(PROTOCOL, waits=False),
}


def fewer(rules: Rules) -> Rules:
    """The same with one crash, one stop and as many messages as the losses below need."""
    messages = 2 if rules.early_looks_add else 3
    return evolve(rules, messages=messages, crashes=1, stops=1, losses=0 if rules in (*SLOWER.values(),) else 1)


def everything(world: World) -> int:
    """All messages that exist."""
    return (1 << world.sent) - 1


def undelivered(world: World) -> int:
    """What is stored and not acknowledged."""
    return world.stored & ~world.acked


def at_rest(world: World) -> bool:
    """True if nothing is owed, and no machine is busy: without a new message there is no further read."""
    return (
        world.row in (NONE, DONE)
        and not undelivered(world)
        and all(machine.at == IDLE and not machine.in_hand for machine in world.machines)
    )


def lost(world: World) -> int:
    """Messages that are marked, that no consumer ever had, and that no read will show."""
    return world.read & ~world.handled if at_rest(world) else 0


def left(world: World) -> int:
    """What no consumer ever had."""
    return everything(world) & ~world.handled


def bad(world: World, rules: Rules) -> str:
    """What is wrong with a world, or nothing."""
    if lost(world):
        return "a message is lost"
    if left(world) and not world.late and next(progress(world, rules), None) is None:
        return "a message is left"
    return ""


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
    for number, machine in enumerate(world.machines):
        if world.crashes < rules.crashes and machine != Machine():
            yield from _crash(world, number, machine)
        if world.stops < rules.stops and not machine.stopped and machine.epoch:
            stopped = machine._replace(stopped=True)
            yield f"m{number} is stopped", _set(world, number, stopped, stops=world.stops + 1)
        if world.losses < rules.losses and machine.at in (SENT, ANSWERED) and not machine.stopped:
            for name, after in _unknown(world, number, machine):
                yield name, after._replace(losses=world.losses + 1)


def _crash(world: World, number: int, machine: Machine) -> Iterator[tuple[str, World]]:
    dead = _set(world, number, Machine(), crashes=world.crashes + 1)
    yield f"m{number} dies", dead
    if machine.at == SENT:
        yield f"m{number} dies, GET still on its way", dead._replace(late=world.late + 1)


def _unknown(world: World, number: int, machine: Machine) -> Iterator[tuple[str, World]]:
    """The answer is lost. Who holds the seat writes down that the outcome is unknown."""
    idle = machine._replace(at=IDLE, shown=0)
    held = machine.epoch == world.epoch
    after = _set(world, number, idle, row=WAITING if held and world.row == ISSUED else world.row)
    yield f"m{number} answer lost", after
    if machine.at == SENT:
        yield f"m{number} times out, GET still on its way", after._replace(late=world.late + 1)


def progress(world: World, rules: Rules) -> Iterator[tuple[str, World]]:
    """What the machines, the server and the consumer do by themselves."""
    # What is on the wire is executed within the settle time. Who was stopped after its check has sent within the
    # quarter of an hour [the assumption that README names].
    on_the_wire = world.late or any(machine.at == SENT for machine in world.machines)
    ghosts = any(machine.at == CHECKED and machine.epoch != world.epoch for machine in world.machines)
    if world.row == WAITING and not on_the_wire:
        yield "settle time over", world._replace(row=OPEN)
    if world.row == AGAIN and not on_the_wire and not ghosts:
        yield "a quarter of an hour over", world._replace(row=OPEN)
    for number, machine in enumerate(world.machines):
        if machine.at == SENT:  # the server does not know who is stopped
            page = machine._replace(at=ANSWERED, shown=everything(world))
            yield f"m{number} GET executed", _set(world, number, page, read=everything(world))
        if machine.stopped:
            yield f"m{number} wakes", _set(world, number, machine._replace(stopped=False))
        else:
            yield from ((f"m{number} {name}", after) for name, after in _work(world, number, machine, rules))


def _work(world: World, number: int, machine: Machine, rules: Rules) -> Iterator[tuple[str, World]]:
    yield from _consumer(world, number, machine, rules)
    held = machine.epoch == world.epoch and machine.epoch > 0
    if machine.at == IDLE and not machine.in_hand:
        if not held and (world.holder < 0 or _is_gone(world, world.holder)):
            yield "takes the seat", _take_over(world, number, machine, rules)
        elif machine.epoch and not held:
            yield "sees that it is lost", _set(world, number, machine._replace(epoch=0))
    if machine.at == IDLE and held:
        if world.row in (NONE, DONE) and everything(world) & ~world.read:
            yield "lists", world._replace(row=OPEN)
        if world.row == AGAIN and everything(world) & ~world.read:
            yield "lists, before the second look", world._replace(row=OPEN, again=rules.early_looks_add)
        if world.row == OPEN:
            yield "claims", _set(world, number, machine._replace(at=CLAIMED), row=ISSUED)
    elif machine.at == CLAIMED:
        if held or not rules.checks_last:
            yield "checks its lease", _set(world, number, machine._replace(at=CHECKED))
        else:
            yield "may not send", _set(world, number, machine._replace(at=IDLE, epoch=0))
    elif machine.at == CHECKED:
        yield "sends", _set(world, number, machine._replace(at=SENT))
    elif machine.at == ANSWERED:
        yield "stores", _store(world, number, machine, rules)


def _is_gone(world: World, holder: int) -> bool:
    """Its lease has ended: it is dead, or was stopped for longer."""
    machine = world.machines[holder]
    return machine.stopped or machine.epoch != world.epoch


def _take_over(world: World, number: int, machine: Machine, rules: Rules) -> World:
    issued = world.row == ISSUED
    return _set(
        world,
        number,
        machine._replace(epoch=world.epoch + 1),
        epoch=world.epoch + 1,
        holder=number,
        row=(WAITING if rules.waits else OPEN) if issued else world.row,
        again=world.again or (issued and rules.second_look),
    )


def _store(world: World, number: int, machine: Machine, rules: Rules) -> World:
    idle = machine._replace(at=IDLE, shown=0)
    held = machine.epoch == world.epoch
    if held or (not rules.done_is_fenced and world.row == ISSUED):
        row, again = (AGAIN, False) if world.again else (DONE, False)
        return _set(world, number, idle, stored=world.stored | machine.shown, row=row, again=again)
    known = world.stored | machine.shown if rules.late_answers else world.stored
    return _set(world, number, idle, stored=known)


def _consumer(world: World, number: int, machine: Machine, rules: Rules) -> Iterator[tuple[str, World]]:
    if not machine.in_hand:
        bodies = undelivered(world)
        if bodies and machine.epoch == world.epoch and machine.epoch:
            acked = world.acked if rules.acks_last else world.acked | bodies
            yield "delivers", _set(world, number, machine._replace(in_hand=bodies), acked=acked)
    elif machine.in_hand & ~world.handled:
        after = machine if rules.acks_last else machine._replace(in_hand=0)
        yield "handled", _set(world, number, after, handled=world.handled | machine.in_hand)
    else:
        yield "acknowledges", _set(world, number, machine._replace(in_hand=0), acked=world.acked | machine.in_hand)


def _set(world: World, number: int, machine: Machine, **changes: object) -> World:
    machines = (*world.machines[:number], machine, *world.machines[number + 1 :])
    return world._replace(machines=machines, **changes)  # type: ignore[arg-type]
