"""What is written down before and after each request, so that a crash at any point loses nothing.

Begin with `journal`: `Journal` has one method for each step of the protocol. It hands units of work to an `Engine`
(`engine`), which runs them in a thread of its own and commits those together that come together. What an engine keeps
them in is a `Store` (`store`: the protocol and its values): one SQLite file (`sqlite`, the only importer of sqlite3),
memory (`memory`, for tests and simulations), or PostgreSQL (`mlmessages.postgres`). Where several processes share a
store, `seats` says which of them decides for a seller: leases, takeover after a death, fair sharing; `shared` opens it.

This folder imports errors, failpoints and files, and nothing of the API, of HTTP, or of what an inbox decides.
"""
