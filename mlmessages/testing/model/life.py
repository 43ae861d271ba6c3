"""Conversations that look like life: ordinary questions in Spanish and Portuguese, over weeks and hours of the day."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Final

from .calendar import START
from .packs import Message, Pack, Sender

_DAY: Final = 86400.0
_SITES: Final = {"MLM": (-6, "es"), "MLB": (-3, "pt"), "MLA": (-3, "es"), "MLC": (-4, "es"), "MCO": (-5, "es")}
_SITE_WEIGHTS: Final = (34, 30, 16, 10, 10)
# How many buyers write in each hour of their day: lunch and the evening are busy, the night is not.
_HOURS: Final = (2, 1, 1, 1, 1, 1, 3, 6, 10, 13, 15, 16, 17, 16, 14, 14, 15, 16, 17, 19, 21, 20, 14, 7)
_WEEKDAYS: Final = (1.2, 1.1, 1.0, 1.0, 0.9, 0.6, 0.5)
_OPENS, _CLOSES = 9, 19  # the hours at which sellers answer
_BLOCKS: Final = ("blocked_by_buyer", "blocked_by_mediation", "blocked_by_cancelled_order")

_QUESTIONS: Final = {
    "es": (
        "Hola, ¿cuándo llega mi pedido?",
        "Buenas tardes, ¿me pueden decir si ya salió el paquete?",
        "Hola! Compré el talle M pero necesito el L, ¿se puede cambiar?",
        "¿Me pueden enviar la factura, por favor?",
        "El seguimiento no se actualiza desde el lunes. ¿Hay algún problema?",
        "Buen día, recibí el producto pero falta el cargador.",
        "¿Es compatible con el modelo del año pasado?",
        "Hola, me equivoqué en la dirección. ¿Todavía la puedo cambiar?",
        "Llegó con la caja abierta y un golpe en la esquina. ¿Qué hago?",
        "¿La garantía es de ustedes o del fabricante?",
        "Hola, ¿tienen el mismo en color negro?",
        "Quisiera devolverlo, no es lo que esperaba.",
        "¿Cómo se instala? El manual viene solo en inglés.",
        "No estoy en casa hasta las 18 h, ¿pueden entregar por la tarde?",
    ),
    "pt": (
        "Olá, quando chega o meu pedido?",
        "Boa tarde, o pacote já foi enviado?",
        "Oi! Comprei o tamanho M mas preciso do G, dá para trocar?",
        "Vocês podem me mandar a nota fiscal, por favor?",
        "O rastreamento está parado desde segunda. Aconteceu alguma coisa?",
        "Bom dia, recebi o produto mas faltou o carregador.",
        "Serve no modelo do ano passado?",
        "Oi, coloquei o endereço errado. Ainda consigo mudar?",
        "Chegou com a caixa aberta e amassada. O que eu faço?",
        "A garantia é com vocês ou com o fabricante?",
        "Olá, vocês têm o mesmo na cor preta?",
        "Gostaria de devolver, não era o que eu esperava.",
        "Como se instala? O manual veio só em inglês.",
        "Só chego em casa às 18h, dá para entregar à tarde?",
    ),
}
_ANSWERS: Final = {
    "es": (
        "¡Hola! Gracias por escribirnos. Ya lo revisamos y te contamos.",
        "Buenas, el pedido sale hoy y llega en dos o tres días hábiles.",
        "Sí, se puede cambiar sin costo dentro de los 30 días.",
        "Te enviamos la factura por este medio en unos minutos.",
        "Hablamos con el correo: lo entregan mañana.",
        "Disculpe la demora. ¿Nos manda una foto, por favor?",
        "Sí, es compatible. Cualquier duda nos escribe.",
        "La garantía es de seis meses y la damos nosotros.",
    ),
    "pt": (
        "Olá! Obrigado pela mensagem. Vamos verificar e já retornamos.",
        "Bom dia, o pedido sai hoje e chega em dois ou três dias úteis.",
        "Sim, dá para trocar sem custo em até 30 dias.",
        "Mandamos a nota fiscal por aqui em alguns minutos.",
        "Falamos com a transportadora: a entrega é amanhã.",
        "Desculpe a demora. Pode nos mandar uma foto, por favor?",
        "Sim, é compatível. Qualquer dúvida é só chamar.",
        "A garantia é de seis meses e é com a gente.",
    ),
}
_FOLLOW_UPS: Final = {
    "es": (
        "¡Muchas gracias!",
        "Perfecto, quedo a la espera.",
        "¿Alguna novedad?",
        "Ok, mañana les confirmo.",
        "Todavía no me llegó nada.",
        "Listo, ya lo recibí. Gracias.",
        "¿Y a qué hora pasaría el correo?",
    ),
    "pt": (
        "Muito obrigado!",
        "Perfeito, fico no aguardo.",
        "Alguma novidade?",
        "Ok, amanhã confirmo.",
        "Ainda não chegou nada.",
        "Pronto, já recebi. Obrigada.",
        "E a que horas o entregador passa?",
    ),
}


def lifelike(
    packs: int, *, messages: int | None = None, seed: int = 0, weeks: float = 6.0, begins: float = START
) -> Iterator[Pack]:
    """Yield unread conversations that look like life, for a sandbox that begins on the date `begins`.

    `messages`: how many each has; None: one to nine. The same arguments give the same conversations.
    """
    for number in range(packs):
        yield _conversation(random.Random(seed * 1_000_003 + number), messages, weeks, begins)


def question(number: int) -> str:
    """Return an ordinary question of a buyer, another one for each number."""
    language = ("es", "pt")[number % 2]
    return _QUESTIONS[language][number // 2 % len(_QUESTIONS[language])]


def _conversation(chance: random.Random, messages: int | None, weeks: float, begins: float) -> Pack:
    site = chance.choices(list(_SITES), _SITE_WEIGHTS)[0]
    zone, language = _SITES[site]
    length = messages or min(9, 1 + int(chance.expovariate(0.45)))
    moments = _moments(chance, _senders(chance, length), weeks * 7, begins, zone * 3600.0)
    newest_by_buyer = max(n for n, (sender, _) in enumerate(moments) if sender == "buyer")
    rows = []
    for n, (sender, moment) in enumerate(moments):
        texts = _ANSWERS if sender == "seller" else _FOLLOW_UPS if n else _QUESTIONS
        # what the buyer wrote since the last answer is unread; an older message the seller has read
        answered = any(later == "seller" for later, _ in moments[n + 1 : newest_by_buyer])
        rows.append(
            Message(chance.choice(texts[language]), sender, read=sender == "seller" or answered, age=begins - moment)
        )
    old = begins - moments[-1][1] > 30 * _DAY
    blocked = old or chance.random() < 0.06
    substatus = "blocked_by_time" if old else chance.choice(_BLOCKS) if blocked else None
    return Pack(messages=rows, site_id=site, status="blocked" if blocked else "active", substatus=substatus)


def _senders(chance: random.Random, length: int) -> list[Sender]:
    """Return who writes, oldest first: the buyer begins; some write twice; some sellers answered without reading."""
    senders: list[Sender] = ["buyer"]
    while len(senders) < length:
        same = 0.25 if senders[-1] == "buyer" else 0.1
        other: Sender = "seller" if senders[-1] == "buyer" else "buyer"
        senders.append(senders[-1] if chance.random() < same else other)
    if senders[-1] == "seller" and chance.random() < 0.7:
        senders[-1] = "buyer"
    return senders


def _moments(
    chance: random.Random, senders: list[Sender], days: float, begins: float, zone: float
) -> list[tuple[Sender, float]]:
    """Return when each is written, as dates."""
    moment = _busy_hour(chance, begins - chance.random() ** 1.5 * days * _DAY, zone)
    found = [(senders[0], moment)]
    for sender in senders[1:]:
        median = 40.0 if sender == "seller" else 150.0  # minutes
        moment += 60.0 * median * math.exp(chance.gauss(0.0, 1.1))
        if sender == "seller":
            moment = _opening_hour(chance, moment, zone)
        found.append((sender, moment))
    late = found[-1][1] - begins + 60.0
    shift = math.ceil(late / _DAY) * _DAY if late > 0 else 0.0  # by whole days, so that the hours stay
    return [(sender, moment - shift) for sender, moment in found]


def _busy_hour(chance: random.Random, moment: float, zone: float) -> float:
    day = (moment + zone) // _DAY  # 1970-01-01 was a Thursday
    if chance.random() > _WEEKDAYS[int(day + 3) % 7] / max(_WEEKDAYS):
        day -= chance.randint(1, 3)
    hour = chance.choices(range(24), _HOURS)[0]
    return float(day * _DAY + hour * 3600.0 + chance.random() * 3600.0 - zone)


def _opening_hour(chance: random.Random, moment: float, zone: float) -> float:
    hour = (moment + zone) % _DAY / 3600.0
    if _OPENS <= hour < _CLOSES:
        return moment
    hours = (_OPENS - hour) % 24
    return moment + (hours + chance.random() * 1.5) * 3600.0
