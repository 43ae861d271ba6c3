"""A report on conversations that were written to a file: `lines`, `facts`, `figures`, `charts`, `page`, in this order.

No client, no clock, no network and no file. Only `charts` needs matplotlib, and only `page` Jinja (extra ``report``).
"""

from __future__ import annotations

import logging

# Else it tells of its font cache on stderr as soon as it is imported; who wants to know has a handler of their own.
logging.getLogger("matplotlib").addHandler(logging.NullHandler())
