"""The languages of a page: English, Spanish and Portuguese; `texts.json` has what each English sentence becomes."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Final, Literal

from .wording import ENGLISH, Wording

_TEXTS: Final[dict[str, dict[str, str]]] = json.loads(files(__package__).joinpath("texts.json").read_text("utf-8"))

SPANISH: Final = Wording(
    "es",
    ("ene", "feb", "mar", "abr", "may", "jun", "jul", "ago", "sep", "oct", "nov", "dic"),
    "\u202f",  # a narrow blank: Mexico groups thousands with a comma and Argentina with a point
    ",",
    "%d/%m/%Y %H:%M",
    {english: languages["es"] for english, languages in _TEXTS.items()},
)
PORTUGUESE: Final = Wording(
    "pt-BR",
    ("jan", "fev", "mar", "abr", "mai", "jun", "jul", "ago", "set", "out", "nov", "dez"),
    ".",
    ",",
    "%d/%m/%Y %H:%M",
    {english: languages["pt"] for english, languages in _TEXTS.items()},
)
LANGUAGES: Final[dict[Literal["en", "es", "pt"], Wording]] = {"en": ENGLISH, "es": SPANISH, "pt": PORTUGUESE}
