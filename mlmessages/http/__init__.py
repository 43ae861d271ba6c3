"""One request on its way: repeats, the request budget, the token and one attempt, in one order.

Begin with `pipeline`: every request goes through `Pipeline.execute`, in the order retry ( limits ( auth ( transport
))), then the answer is checked and read. `limits` is the request budget, `retry` says when something is sent again,
`transport` sends once and says what is known if no answer came. What may be sent again is a rule of the API, without a
loop or a clock: `mlmessages.api.outcomes`.

Where to look: a 429: `Limits` and `Brake`. A request was repeated, or was not: `api.outcomes.repeatable`, then
`RetryLoop.next_wait`. A token was refused: `RequestAttempts._renew_token`, then `mlmessages.auth`. No connection:
`transport._failure`.

It may import `auth`, `api` and what is below them. aiohttp's client is known to `transport` alone, aiolimiter to
`limits`, backoff to `retry`.
"""
