"""The protocol that loses no message: intent first, then the marking read, then delivery and acknowledgement.

Reading a conversation with ``mark_as_read`` marks it read, and nothing can mark it unread again. So a process that dies
between the server's mark and its own handling would lose what the answer showed. The inbox keeps a journal, a database
with the rules of a write-ahead log, and needs one GET for a conversation of one page.

Where to begin reading::

    inbox        `Inbox`, the public face, and the ways in for a process with many inboxes
    drain        `Delivery`, and the iterator of `Inbox.drain`
    ingest       from the listing to the journal: what is owed, and one read of a pack
    undelivered  from the journal to the acknowledgement: what is handed over next, nothing twice
    slots        calls of the handler over many sellers: so many at a time, in turns
    dispatcher   the handler of `Inbox.run`: its places, its failures, dead letters
    notified     notifications: the doorbell, and the look-up of messages that are missing
    service      one `Inbox.run`: the loop that decides what is asked next
    receiver     what a posted notification is worth, for any web framework

Imports point down: receiver > inbox > service > dispatcher > notified, drain > ingest > undelivered. Nothing is
re-exported here. Below are `conversations` (walking the pages, the backlog, the decision table) and `journal`.

A pack's states in the journal::

    open    owed: it is read when its wait is over; of unknown outcome, if it may have been marked
    issued  claimed: a marking request of it may have left
    done    every id of a walk through it is stored
    parked  given up for a while: refused, unreadable, or still listed though nothing explains it

open, issued, done; from issued back to open with a wait, or to parked.

The rules
---------

1. **Intent first.** A listing is one transaction: each pack of it is owed. The claim (issued) is a second one, durable
   before the first byte of a marking request leaves, and written when nothing is left to wait for: permit and token are
   there. So after a crash only what was in flight is in doubt. A full disk, a journal that was deleted: nothing is
   marked.
2. **Only the first page marks.** Later pages carry ``mark_as_read=false``, and overlap by one message.
3. **Done together with the ids.** A pack is done in the transaction that stores every id of every page of its walk, and
   in no other.
4. **New means: its id is not in the journal.** Never a date, a count, or ``read``: after a lost answer all of it shows
   as read.
5. **An unknown outcome waits.** A marking request that was not answered (a timeout, a disconnect, a 5xx) may still be
   executed, and would mark what came after the retry. Its pack is read again after ``settle_time``; the others go on.
   After a restart it waits at least ``settle_time`` by the monotonic clock, whatever the wall clock says.
6. **A claim of a process that has ended is of unknown outcome.** Its marking request may have left, so it waits from
   the restart as under 5. One process at a time uses a journal.
7. **A second read where the first may have been behind.** The answer to a mark that cannot be read was executed all the
   same; the page is read again at once, perhaps from a replica that is behind, so the pack stays open and is read once
   more after ``settle_time``. A pack that was taken over from another worker is read once more 15 minutes later, and
   before that whenever it is listed.
8. **Delivered until it is acknowledged.** What was not is delivered by the next process, first, and with
   ``redelivered``. Messages of a pack are handed over oldest first, one delivery at a time, each message once.
9. **The end of a drain** is a listing that was sent after its last read and shows nothing but parked packs. An empty
   listing right after 429s is asked for once more.
10. **Notifications are a doorbell and a checksum.** Each rings for a listing, at most one in 5 s; a minute later its
    message must be in the journal, else one GET by its id, five tries, then parked. A receipt (``actions`` is nothing
    but ``read``) is what our own marking causes, and does not ring. What strangers can cause is bounded: rows of the
    journal, listings, one fiftieth of the budget.
11. **What cannot be stored** parks its pack alone.

When a pack is listed again after its mark
------------------------------------------

The new read decides; the first line that fits (`mlmessages.conversations.backlog.listed_again`):

1. It shows an id that is not known: an arrival. Deliver it; the read was its mark.
2. The outcome of the last mark is unknown: perhaps it was never executed. After the wait, mark again.
3. It shows a message of the counterparty beyond the first page with ``read`` null, after an answered mark: the server
   marks no more than it returns. Mark page by page, and close with a walk that marks nothing.
4. Nothing of the kind, for the first time: a listing that lags, or hidden messages. Read once more after 5 s, if it is
   still listed.
5. Nothing of the kind again: hidden (moderated) messages, which cannot be cleared. Park it as `StillListed`; it opens
   again when its count changes or a notification names it.

Here alone ``read`` is looked at, and only to choose how to mark.

Where to look: a message came twice: rule 8, `undelivered`, then `Delivery.once` in `drain`. A pack is not read: its
row in the journal (``mlmessages journal FILE``), then `ingest`. A notification led to nothing: `receiver`, `notified`.
A handler failed: `dispatcher`.

What proves it: ``tests/inbox/model`` (a breadth-first search of the protocol, and of each rule left out),
``tests/inbox/kill`` (SIGKILL at every failpoint, real processes), ``tests/inbox`` by rule.
"""
