"""What `mlmessages doctor` finds out. Begin with `check.Check`, the value of which all of it is made.

`local` looks at this machine and sends nothing; `remote` asks the API, and marks nothing; `probe` finds out on one
conversation, which it marks, what the documentation does not say; `asker` sends their requests and counts them.
"""
