"""One request on its way: repeats, the request budget, the token and one attempt, in one order.

Begin with `pipeline`: `Pipeline.execute` is the one door to the API, and its order is retry ( limits ( auth (
transport ))), then the answer is checked and read. `limits` is the request budget, `retry` decides what is sent again
and when, `transport` sends once and says what is known if no answer came.

It may import `auth`, `api` and what is below them. aiohttp's client is known to `transport` alone, aiolimiter to
`limits`, backoff to `retry`.
"""
