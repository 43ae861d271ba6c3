"""Many sellers on many machines: seats that are held, an inbox for each, one budget. Begin reading in `fleet.py`.

`supervisor` decides which seats this process serves; `seller` is one seller's client and inbox while its seat is held;
leases, takeover and sharing are in `mlmessages.journal.seats`, so that every shared store can use them;
`missed` asks for missed notifications; `database` names what a fleet needs of a database. The folder may import
everything but `cli`, `web`, `asgi`, `report` and `testing`.
"""
