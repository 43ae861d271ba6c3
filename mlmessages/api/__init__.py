"""What is said to Mercado Libre and what it answers: pure values, without event loop, clock, socket or disk.

Begin with `calls`: a `Call` is a `Request` and how to read its `Response`. `endpoints` makes calls of arguments,
`decoding` makes models of answers, `refusals` makes an error of anything but a 2xx. `paging` walks the pages of a
conversation. The other files serve these.

Only `models`, `errors`, `events`, `escaping`, attrs, cattrs (in `decoding` alone) and the standard library without
asyncio, pathlib, socket, sqlite3 and time may be imported here; a contract in pyproject.toml proves it.

Sources
-------
A rule of the vendor's names its source in brackets: ``[documented: …]`` for a page of the documentation at
developers.mercadolibre.com and global-selling.mercadolibre.com, ``[observed: …]`` for what answers or public code show.

documented:

- pending messages: "Pending messages" of Global Selling: the unread listing, marking by reading, six errors
- messages: "Messages after the sale" of domestic sites: conversations, one message, sending, lengths, characters
- blocking: "Blocked messages": why one cannot write in a conversation
- reasons: "Reasons to communicate": the action guide
- attachments: "Attachments" of messages: sizes, types, names, how long an upload is kept
- notifications: "Notifications" and "Missed feeds": topics, repetitions, time to answer
- agents: the announcement of messaging agents, February 2026
- authorisation: "Authentication and authorization": tokens, their lives, the errors of the token endpoint
- blocked applications: "Blocking of applications"
- error 403: "Error 403"
- limits: "Rate limits" of messages: 500 requests a minute to read, and as many to write
- packs: "Packs" and "Orders": an order without a pack stands in the place of one

observed:

- answers: in live answers and error bodies that integrators published, 2023 to 2026
- integrators: in the code, tests and issues of public integrations; not proven against the API
"""
