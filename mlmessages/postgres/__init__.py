"""The journal, the seats, the tokens and the budget of many sellers in PostgreSQL: the one folder that knows psycopg.

Begin with `database`: `Database` is what users make. It opens two connections, each in a thread of its own: one for the
journal (`store`: the `SharedStore` of `mlmessages.journal` in SQL, behind its `Engine`), one for tokens and permits
(`connection.Statements`). `schema` applies ``migrations/*.sql``; `keys` encrypts what is secret; `address` says which
URLs are safe to connect to.

psycopg and cryptography come with the extra ``postgres``. They are imported where a `Database` is made, so that the
rest of the library does without them.
"""
