"""A report on conversations that were written to a file: `lines`, `facts`, `figures`, `charts`, `page`, in this order.

No client, no clock, no network and no file. Only `charts` needs matplotlib, and only `page` Jinja (extra ``report``).
"""

from __future__ import annotations

import logging

# Without a handler, matplotlib writes about its font cache to stderr when it is imported.
logging.getLogger("matplotlib").addHandler(logging.NullHandler())
