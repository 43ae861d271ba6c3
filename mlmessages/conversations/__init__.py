"""Conversations of one seller: read, drained past the listing's cap, fetched in bulk, answered.

What `MessagesClient` hands to its callers is made here, and the `Inbox` stands on it. What may be imported is `http`,
`auth`, `api` and what lies below them; nothing of the journal, the inbox, the client or the commands.

- `reader`: one conversation, walked page by page or marked. Begin here.
- `backlog`: what a drain owes, and the decision table for a pack that is listed again: no loop and no clock.
- `drain_loop`: listings and reads by turns over a backlog, for `drain` and for the inbox.
- `seller_check`: whether the seller id is another user's.
- `drain`, `fetch`: the two async iterators; `single_consumer` is what they have in common.
- `writer`, `attachments`: replies, the action guide, files; what is sent is executed once at most.

Where to look: a message was not handed over: `api/paging.py`, then `Drain._mark`. A pack is read again and again, or
not at all: `Backlog.listed` and `listed_again`. A reply was sent twice, or its outcome is unknown: `Writer._deliver`.
"""
