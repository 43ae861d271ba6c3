"""The faces of an engine: HTTP over a real socket or a pipe in memory, with every fault of a wire, and notifications.

`frontend` plays a request against the engine, `wire_faults` sends the answer as a rule wants it, `listener` and
`threaded` bind a socket, `memory` and `pipe` connect a session in process, `notifier` posts what happened.
"""
