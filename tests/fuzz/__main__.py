"""Live through thousands of hostile worlds, and say which promise was broken where.

From the folder ``tests``::

    ../.venv/bin/python -m fuzz 10000                  ten thousand worlds, a quarter of each kind
    ../.venv/bin/python -m fuzz 10000 --from 20000     other ones
    ../.venv/bin/python -m fuzz 500 --kind inboxes     of one kind
    ../.venv/bin/python -m fuzz 1 --kind drains --from 309   one of them again

A world is a server with habits that the documentation leaves open (the order of messages, what a mark reaches, what is
counted, how long pages are, a replica that is behind), a network that loses, delays and garbles, and buyers, moderation
and a seller who act at any time and just before and after each request. Its seed decides all of it, and nothing else
does: time is virtual. Every second world has one of the troubles that once went wrong, made likely.

The kinds: `walks` (the pages of one conversation, without a network), `reads` (`messages`, `mark_read`, `fetch`),
`drains` (`drain()`, to its end, left, closed or cancelled), `inboxes` (an `Inbox` on a journal, by hand or served by
`run`, killed and started again).

It ends with 1 if a message was lost (marked by us, and handed over nowhere), if one was left (unread, although all was
said to be done), or if anything else was wrong: a message that was handed over twice, a read that was given up although
a retry would have helped, a drain that does not end. A run of ten thousand takes a few minutes;
`tests/fuzz/test_worlds.py` lives through some fifteen hundred.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections import Counter
from pathlib import Path

from .kinds import KINDS, live


def main() -> int:
    """Run as many worlds as the command line asks for."""
    parser = argparse.ArgumentParser(prog="fuzz", description="Live through hostile worlds.")
    parser.add_argument("worlds", type=int, help="how many")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first seed")
    parser.add_argument("--kind", choices=KINDS, help="of one kind; else a quarter of each")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if Path("/dev/shm").is_dir():  # the journals of ten thousand worlds need no disk
        os.environ.setdefault("TMPDIR", "/dev/shm")
    kinds = [arguments.kind] if arguments.kind else [*KINDS]
    each = -(-arguments.worlds // len(kinds))
    broken = sum(_run(kind, range(arguments.first, arguments.first + each)) for kind in kinds)
    _say(f"{broken} broken promises" if broken else "no promise was broken")
    return 1 if broken else 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _run(kind: str, seeds: range) -> int:
    """Live through the worlds of one kind, and print what came of them; return how many broke a promise."""
    endings: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    requests, broken, began = 0, 0, time.monotonic()
    for seed in seeds:
        try:
            outcome = live(kind, seed)
        except Exception as error:
            broken += 1
            _say(f"BROKEN {kind} {seed}: {type(error).__name__}: {error}")
            continue
        endings[outcome.ended] += 1
        faults.update(outcome.faults)
        requests += outcome.requests
        if outcome.bad:
            broken += 1
            what = f"lost {outcome.lost[:3]} left {outcome.left[:3]} wrong {outcome.wrong[:2]}"
            _say(f"BROKEN {kind} {seed}: {outcome.kind}: {outcome.ended}: {what}")
    seconds = time.monotonic() - began
    _say(
        f"{kind}: {len(seeds)} worlds, {requests} requests, {sum(faults.values())} faults, {seconds:.0f} s, {broken} broken"
    )
    for name, counter in (("ended", endings), ("faults", faults)):
        if counter:
            _say(f"  {name}: " + ", ".join(f"{what} {many}" for what, many in counter.most_common()))
    return broken


if __name__ == "__main__":
    sys.exit(main())
