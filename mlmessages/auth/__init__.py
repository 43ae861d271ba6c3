"""Access tokens: where they come from, where they are kept, and how they are renewed, once at a time.

Begin with `source`: the interface that the client knows (`TokenSource`), and the text that does not show itself
(`Secret`). `oauth` is the source that renews: read its class docstring, then `OAuthToken.token`. Around it:

- `store`: where a seller's tokens are kept for all processes (`TokenStore`, `FileTokenStore`).
- `grants`: what is said to the token endpoint and what it answers, as values; when a token is due.
- `token_endpoint`: one POST, and which error its refusal is.
- `refresh`: the states of a refresh: what is in use, under way, unsaved, exhausted, failed.
- `in_flight`: token requests that have left: what ends a program waits for their answers.
- `history`: what the server made of the last access tokens, to see when a 401 has another reason.

It may import `api`, `models`, `errors`, `files` and `failpoints`, and knows nothing of aiohttp, the client or the
budget: a client hands over its way to the token endpoint (`token_endpoint.Http`) when it is entered.
"""
