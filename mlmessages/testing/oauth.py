"""The token endpoint of the sandbox: codes and refresh tokens for one use, access tokens that expire. No I/O."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import secrets
from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit

import attrs

_SPENT = "Error validating grant. Your authorization code or refresh token may be expired or it was already used"


@attrs.frozen
class _Code:
    """A consent that was given and not used yet."""

    redirect_uri: str | None
    challenge: str | None


class TokenEndpoint:
    """What the authorization server knows of one application and one seller.

    The first access token lasts until `expire`; those that are granted last `life` seconds of the sandbox's clock, also
    when newer ones are granted, unless `keeps_old` is False. `overrides` replace keys of a granting answer; None leaves
    a key out.
    """

    def __init__(self, seller_id: str, token: str, clock: Callable[[], float]) -> None:
        self.client_id = "1000000000000000"
        self.client_secret = "sandbox-secret"  # noqa: S105 - it opens nothing but a sandbox
        self.life = 21600.0
        self.keeps_old = True
        self.overrides: Mapping[str, object] = {}
        self.granted = 0
        """How many times tokens were granted."""
        self.access_token = token
        self.refresh_token: str | None = f"TG-sandbox-0-{seller_id}"
        self._seller_id = seller_id
        self._clock = clock
        self._ends = {token: math.inf}
        self._codes: dict[str, _Code] = {}

    # -- what happens elsewhere

    def replace(self, token: str) -> None:
        """From now on only this access token is taken."""
        self.access_token = token
        self._ends = {token: math.inf}

    def expire(self) -> None:
        """Every access token ends now; the refresh token lives on."""
        self._ends.clear()

    def revoke(self) -> None:
        """The seller takes the consent back: no token of the application is worth anything."""
        self.expire()
        self.refresh_token = None
        self._codes.clear()

    def refresh_elsewhere(self) -> tuple[str, str]:
        """Another process refreshes: the new access token and the new refresh token."""
        assert self.refresh_token is not None
        self._grant()
        return self.access_token, self.refresh_token

    def consent(self, authorization_url: str) -> str:
        """The seller follows the address and agrees: where the browser is sent then, with a code and the state."""
        query = dict(parse_qsl(urlsplit(authorization_url).query))
        if query.get("response_type") != "code" or query.get("client_id") != self.client_id:
            raise ValueError("this is no authorization address of the sandbox's application")
        code = f"TG-{secrets.token_hex(12)}-{self._seller_id}"
        self._codes[code] = _Code(query.get("redirect_uri"), query.get("code_challenge"))
        back = {"code": code, **({"state": query["state"]} if "state" in query else {})}
        return f"{query.get('redirect_uri', '')}?{urlencode(back)}"

    # -- the API's side

    def takes(self, token: str) -> bool:
        """Whether an access token is good now."""
        return self._ends.get(token, -math.inf) > self._clock()

    def answer(self, method: str, body: bytes) -> tuple[int, bytes]:
        """The status and the body for a form."""
        if method != "POST":
            return _refused("Method not allowed", "method_not_allowed", 405)
        form = dict(parse_qsl(body.decode("utf-8", "replace")))
        if form.get("client_id") != self.client_id or form.get("client_secret") != self.client_secret:
            return _refused("invalid client_id or client_secret.", "invalid_client")
        match form.get("grant_type"):
            case "refresh_token":
                if self.refresh_token is None or form.get("refresh_token") != self.refresh_token:
                    return _refused(_SPENT, "invalid_grant")
            case "authorization_code":
                code = self._codes.pop(form.get("code", ""), None)  # for one use, whatever else is wrong
                if code is None or code.redirect_uri != form.get("redirect_uri") or not _proves(form, code):
                    return _refused(_SPENT, "invalid_grant")
            case None:
                return _refused("grant_type is required", "invalid_request")
            case _:
                return _refused("unsupported grant type", "unsupported_grant_type")
        return 200, self._grant()

    def _grant(self) -> bytes:
        self.granted += 1
        if not self.keeps_old:
            self._ends.clear()
        self.access_token = f"APP_USR-sandbox-{self.granted}-{self._seller_id}"
        answer: dict[str, object] = {
            "access_token": self.access_token,
            "token_type": "Bearer",
            "expires_in": int(self.life),
            "scope": "offline_access read write",
            "user_id": int(self._seller_id),
            "refresh_token": f"TG-sandbox-{self.granted}-{self._seller_id}",
        }
        if self.overrides.get("refresh_token", answer) is not None:
            self.refresh_token = f"TG-sandbox-{self.granted}-{self._seller_id}"
        self._ends[self.access_token] = self._clock() + self.life
        told = {key: value for key, value in {**answer, **self.overrides}.items() if value is not None}
        return json.dumps(told).encode()


def _proves(form: Mapping[str, str], code: _Code) -> bool:
    if code.challenge is None:
        return True
    digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == code.challenge


def _refused(message: str, error: str, status: int = 400) -> tuple[int, bytes]:
    return status, json.dumps({"message": message, "error": error, "status": status, "cause": []}).encode()
