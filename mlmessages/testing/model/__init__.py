"""The documented API as a state machine: pure values and decisions, no loop, no socket, no clock of its own.

`api` leads from a parsed request to an answer; begin reading there. `requests`, `answers` and `shapes` are what crosses
the wire, `conversations` who has written and read what, `paging` what a page shows, `sending`, `action_guide` and
`attachments` what a seller writes, `oauth`, `consent` and `account` whose request it is, `rates` and `missed_feeds` the
rest. `packs`, `life` and `behaviour` are what a test says of it. Nothing here imports from the rest of `mlmessages`:
the sandbox is a second implementation of the documentation.
"""
