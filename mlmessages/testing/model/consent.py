"""The page where a seller agrees, and the page where the browser is sent then. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from urllib.parse import parse_qsl, urlencode, urlsplit

from .answers import Answer
from .oauth import Application, TokenEndpoint
from .requests import ParsedRequest

_MOST_SELLERS = 50
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 4rem auto; padding: 0 1rem; }}
button {{ font: inherit; padding: .5rem 1rem; margin: 0 .5rem .5rem 0; }}
code {{ overflow-wrap: anywhere; }}
</style>
<h1>{title}</h1>
{content}
</html>
"""


def answer(application: Application, request: ParsedRequest) -> Answer:
    """Answer the authorization page (GET), the seller's decision there (POST), or the page of the redirect."""
    if request.kind == "callback":
        return _callback(request)
    try:
        application.check_authorization(request.query)
        if "redirect_uri" not in request.query:
            raise ValueError("the address names no redirect URI")
    except ValueError as error:
        return _page(400, "This address is not complete", f"<p>{escape(str(error))}.</p>")
    if request.method == "GET":
        return _question(request, application.sellers())
    decision = dict(parse_qsl(request.body.decode("utf-8", "replace")))
    if decision.get("answer") != "yes":
        back = {"error": "access_denied", "error_description": "The seller did not agree."}
        return _redirect(request.query["redirect_uri"], back | _state(request))
    sellers = {seller.seller_id: seller for seller in application.sellers()}
    seller = sellers.get(decision.get("seller", ""))
    if seller is None:
        return _page(400, "There is no such seller", "<p>Go back and choose another.</p>")
    return Answer(302, b"", {"Location": application.consent(request.target, seller)})


def _question(request: ParsedRequest, sellers: Sequence[TokenEndpoint]) -> Answer:
    buttons = "\n".join(
        f'<form method="post" action="{escape(request.target)}"><input type="hidden" name="answer" value="yes">'
        f'<button name="seller" value="{escape(seller.seller_id)}">Agree as seller {escape(seller.seller_id)}</button>'
        "</form>"
        for seller in sellers[:_MOST_SELLERS]
    )
    where = urlsplit(request.query["redirect_uri"])
    content = (
        f"<p>The application <code>{escape(request.query['client_id'])}</code> asks to read and write your messages, "
        f"also while you are away. Then the browser is sent to <code>{escape(where.netloc)}</code>.</p>\n{buttons}\n"
        f'<form method="post" action="{escape(request.target)}">'
        '<button name="answer" value="no">Do not agree</button></form>\n'
        "<p>This is the sandbox of mlmessages: no account and no network are behind it.</p>"
    )
    return _page(200, "Do you agree?", content)


def _callback(request: ParsedRequest) -> Answer:
    if "error" in request.query:
        said = escape(request.query.get("error_description") or request.query["error"])
        return _page(200, "The seller did not agree", f"<p>{said}</p>")
    content = (
        "<p>Copy the whole address of this page and give it to <code>mlmessages auth exchange</code>. It is good for "
        "one use.</p>"
    )
    return _page(200, "The seller has agreed", content)


def _state(request: ParsedRequest) -> dict[str, str]:
    return {"state": request.query["state"]} if "state" in request.query else {}


def _redirect(uri: str, query: dict[str, str]) -> Answer:
    return Answer(302, b"", {"Location": f"{uri}{'&' if '?' in uri else '?'}{urlencode(query)}"})


def _page(status: int, title: str, content: str) -> Answer:
    html = _PAGE.format(title=escape(title), content=content)
    return Answer(status, html.encode(), {"Content-Type": "text/html; charset=utf-8"})
