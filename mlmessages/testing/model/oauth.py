"""The authorization server: consents and refresh tokens for one use, access tokens that expire. No I/O."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import secrets
from collections.abc import Callable, Mapping
from typing import Literal, get_args
from urllib.parse import parse_qsl, urlencode, urlsplit

import attrs

WrongClient = Literal["invalid_client", "invalid_grant"]

_SPENT = "Error validating grant. Your authorization code or refresh token may be expired or it was already used"


@attrs.frozen
class _Code:
    """A consent that was given and not used yet."""

    owner: TokenEndpoint
    redirect_uri: str | None
    challenge: str | None


class Application:
    """One application and the sellers who gave it their consent.

    `client_id` and `client_secret` are what its requests for tokens must bring. `blocked`: Mercado Libre has blocked
    the application. `wrong_client`: the error for another client id, "invalid_client" or "invalid_grant".
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.client_id = "1000000000000000"
        self.client_secret = "sandbox-secret"  # noqa: S105 - it opens nothing but a sandbox
        self.blocked = False
        self.wrong_client: WrongClient = "invalid_client"
        self.clock = clock
        self._sellers: dict[str, TokenEndpoint] = {}
        self._owners: dict[str, TokenEndpoint] = {}  # of every access token that was ever granted
        self._codes: dict[str, _Code] = {}

    def add_seller(self, seller_id: str, token: str) -> TokenEndpoint:
        """Add a seller whose consent is given already; `token` is the first access token."""
        seller = self._sellers[seller_id] = TokenEndpoint(self, seller_id, token)
        return seller

    def sellers(self) -> list[TokenEndpoint]:
        """Return the tokens of every seller."""
        return list(self._sellers.values())

    def remember_owner(self, token: str, seller: TokenEndpoint) -> None:
        """Note whose access token this is."""
        self._owners[token] = seller

    def seller_of(self, token: str) -> str | None:
        """Return the seller whom an access token speaks for; None where it is not taken."""
        owner = self._owners.get(token)
        return owner.seller_id if owner is not None and owner.takes(token) else None

    def consent(self, authorization_url: str, seller: TokenEndpoint) -> str:
        """Let a seller agree to what an authorization address asks; return where the browser is sent then.

        ValueError: the address is not one of this application's.
        """
        query = dict(parse_qsl(urlsplit(authorization_url).query))
        self.check_authorization(query)
        code = f"TG-{secrets.token_hex(12)}-{seller.seller_id}"
        self._codes[code] = _Code(seller, query.get("redirect_uri"), query.get("code_challenge"))
        back = {"code": code, **({"state": query["state"]} if "state" in query else {})}
        uri = query.get("redirect_uri", "")
        return f"{uri}{'&' if '?' in uri else '?'}{urlencode(back)}"

    def check_authorization(self, query: Mapping[str, str]) -> None:
        """Check what an authorization address asks for. ValueError: it is not one of this application's."""
        if query.get("response_type") != "code" or query.get("client_id") != self.client_id:
            raise ValueError("this is no authorization address of the sandbox's application")
        if query.get("redirect_uri") is not None and not query["redirect_uri"].startswith(("https://", "http://")):
            raise ValueError("the redirect URI is no https or http address")

    def forget_codes(self, seller: TokenEndpoint) -> None:
        """Make the unused consents of a seller worthless."""
        self._codes = {code: given for code, given in self._codes.items() if given.owner is not seller}

    def answer(self, method: str, body: bytes) -> tuple[int, bytes]:
        """Answer a request for tokens: the status and the body."""
        if method != "POST":
            return _refused("Method not allowed", "method_not_allowed", 405)
        form = dict(parse_qsl(body.decode("utf-8", "replace")))
        if self.blocked:
            return _refused("unauthorized_application", "unauthorized_application")
        if form.get("client_id") != self.client_id and self.wrong_client == "invalid_grant":
            return _refused("The client_id does not match the original.", "invalid_grant")
        if form.get("client_id") != self.client_id or form.get("client_secret") != self.client_secret:
            return _refused("invalid client_id or client_secret.", "invalid_client")
        match form.get("grant_type"):
            case "refresh_token":
                owner = self._owner_of_refresh(form.get("refresh_token"))
                if owner is None:
                    return _refused(_SPENT, "invalid_grant")
            case "authorization_code":
                code = self._codes.pop(form.get("code", ""), None)  # for one use, whatever else is wrong
                if code is None or code.redirect_uri != form.get("redirect_uri") or not _proves(form, code):
                    return _refused(_SPENT, "invalid_grant")
                owner = code.owner
            case None:
                return _refused("grant_type is required", "invalid_request")
            case _:
                return _refused("unsupported grant type", "unsupported_grant_type")
        return 200, owner.grant()

    def _owner_of_refresh(self, token: str | None) -> TokenEndpoint | None:
        if token is None:
            return None
        return next((seller for seller in self._sellers.values() if seller.refresh_token == token), None)


class TokenEndpoint:
    """The tokens of one seller, and what happens to them elsewhere.

    The first access token lasts until `expire`; those that are granted last `life` seconds of the sandbox's clock, also
    when newer ones are granted, unless `keeps_old` is False. `overrides` replace keys of a granting answer, such as its
    `user_id`; None leaves a key out. `granted` counts how many times tokens were granted.
    """

    def __init__(self, application: Application, seller_id: str, token: str) -> None:
        self.seller_id = seller_id
        self.life = 21600.0
        self.keeps_old = True
        self.overrides: Mapping[str, object] = {}
        self.granted = 0
        self.access_token = token
        self.refresh_token: str | None = f"TG-sandbox-0-{seller_id}"
        self._application = application
        self._ends = {token: math.inf}
        application.remember_owner(token, self)

    @property
    def client_id(self) -> str:
        """The application's id."""
        return self._application.client_id

    @client_id.setter
    def client_id(self, value: str) -> None:
        self._application.client_id = value

    @property
    def client_secret(self) -> str:
        """The application's secret."""
        return self._application.client_secret

    @client_secret.setter
    def client_secret(self, value: str) -> None:
        self._application.client_secret = value

    @property
    def blocked(self) -> bool:
        """Whether Mercado Libre has blocked the application: its calls get 401, its requests for tokens 400."""
        return self._application.blocked

    @blocked.setter
    def blocked(self, value: bool) -> None:
        self._application.blocked = value

    @property
    def wrong_client(self) -> WrongClient:
        """The error for a client id that is not the application's."""
        return self._application.wrong_client

    @wrong_client.setter
    def wrong_client(self, value: WrongClient) -> None:
        if value not in get_args(WrongClient):
            raise ValueError(f"wrong_client is one of {', '.join(get_args(WrongClient))} (got {value!r})")
        self._application.wrong_client = value

    # -- what happens elsewhere

    def replace(self, token: str) -> None:
        """Take only this access token from now on."""
        self.access_token = token
        self._ends = {token: math.inf}
        self._application.remember_owner(token, self)

    def expire(self) -> None:
        """End every access token now; the refresh token lives on."""
        self._ends.clear()

    def revoke(self) -> None:
        """Take the seller's consent back: no token of the application is worth anything."""
        self.expire()
        self.refresh_token = None
        self._application.forget_codes(self)

    def refresh_elsewhere(self) -> tuple[str, str]:
        """Refresh as another process would; return the new access token and the new refresh token."""
        assert self.refresh_token is not None
        self.grant()
        return self.access_token, self.refresh_token

    def consent(self, authorization_url: str) -> str:
        """Follow the address as the seller and agree; return where the browser is sent then, with a code and the state.

        ValueError: the address is not one of the sandbox's application.
        """
        return self._application.consent(authorization_url, self)

    # -- the API's side

    def takes(self, token: str) -> bool:
        """Whether an access token is good now."""
        return self._ends.get(token, -math.inf) > self._application.clock()

    def answer(self, method: str, body: bytes) -> tuple[int, bytes]:
        """Answer a request for tokens: the status and the body."""
        return self._application.answer(method, body)

    def grant(self) -> bytes:
        """Grant new tokens; return the body of the answer."""
        self.granted += 1
        if not self.keeps_old:
            self._ends.clear()
        self.access_token = f"APP_USR-sandbox-{self.granted}-{self.seller_id}"
        answer: dict[str, object] = {
            "access_token": self.access_token,
            "token_type": "Bearer",
            "expires_in": int(self.life),
            "scope": "offline_access read write",
            "user_id": int(self.seller_id),
            "refresh_token": f"TG-sandbox-{self.granted}-{self.seller_id}",
        }
        if self.overrides.get("refresh_token", answer) is not None:
            self.refresh_token = f"TG-sandbox-{self.granted}-{self.seller_id}"
        self._ends[self.access_token] = self._application.clock() + self.life
        self._application.remember_owner(self.access_token, self)
        told = {key: value for key, value in {**answer, **self.overrides}.items() if value is not None}
        return json.dumps(told).encode()


def _proves(form: Mapping[str, str], code: _Code) -> bool:
    if code.challenge is None:
        return True
    digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == code.challenge


def _refused(message: str, error: str, status: int = 400) -> tuple[int, bytes]:
    return status, json.dumps({"message": message, "error": error, "status": status, "cause": []}).encode()
