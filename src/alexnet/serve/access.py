"""Access to a server: a token, and checks against requests that other sites make a browser send."""

from __future__ import annotations

import hmac
import json
import os
import re
import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode

from starlette.types import ASGIApp, Receive, Scope, Send

from alexnet.runtime.errors import UsageError

SHORTEST_TOKEN = 16
TOKEN_VARIABLE = "ALEXNET_TOKEN"
OPEN_PATHS = ("/healthz",)
"""Paths without a token: they say only that the server runs."""

SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; object-src 'none'; "
        b"base-uri 'none'; frame-ancestors 'none'; form-action 'none'",
    ),
)
"""Headers of every answer: nothing is loaded from, sent to, or framed by other sites."""


def chosen_token(token: str = "") -> str:
    """Return a token: the given one, that of the environment variable ALEXNET_TOKEN, or a new random one.

    Raises
    ------
    UsageError
        If it is too short, or has characters that a URL would have to encode.
    """
    token = token or os.environ.get(TOKEN_VARIABLE, "") or secrets.token_urlsafe(24)
    if len(token) < SHORTEST_TOKEN or not re.fullmatch(r"[A-Za-z0-9._~-]+", token):
        raise UsageError(
            f"the token must have {SHORTEST_TOKEN} characters or more, of letters, digits and . _ ~ -; "
            "--token without a value draws one"
        )
    return token


class Access:
    """Middleware that answers 401 without the token, and 403 to requests that come from another site.

    The token is the header ``Authorization: Bearer TOKEN``, or a cookie. A GET with ``?token=TOKEN`` sets the cookie
    and is redirected to the address without it. A request that is not GET or HEAD must have no Origin of another host:
    a browser always sends it with what another site makes it post.

    Parameters
    ----------
    app
        The application.
    token
        The token.
    hosts
        Values of the header Host that are accepted, such as "localhost:8001"; None accepts all. A name of another site
        that was made to resolve to this machine (DNS rebinding) is not among them.
    header_for_writes
        Whether a request that is not GET or HEAD must have the token as a header, which a form or an image of another
        site cannot send.
    """

    def __init__(
        self, app: ASGIApp, token: str, *, hosts: frozenset[str] | None = None, header_for_writes: bool = False
    ) -> None:
        self.app, self.token, self.hosts, self.header_for_writes = app, token, hosts, header_for_writes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no route is a WebSocket
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if self.hosts is not None and host.lower() not in self.hosts:
            await _refuse(send, 403, "this host name is not that of the server")
            return
        reads = scope["method"] in ("GET", "HEAD")
        if not reads and not _same_site(headers, host):
            await _refuse(send, 403, "a request from another site")
            return
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == "token"]
        if reads and given:
            if self._is_token(given[0]):
                await self._redirect(scope, send, urlencode([pair for pair in query if pair[0] != "token"]), host)
            else:
                await _refuse(send, 401, "the token is wrong: open the address that the server printed")
            return
        if scope["path"] not in OPEN_PATHS and not self._has_token(headers, host, reads):
            await _refuse(send, 401, "a token is missing: open the address that the server printed, or send it")
            return
        await self.app(scope, receive, send)

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self.token.encode())

    def _has_token(self, headers: dict[str, str], host: str, reads: bool) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self._is_token(given.strip())
        if self.header_for_writes and not reads:
            return False
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(_cookie_name(host))
        except CookieError:
            return False
        return cookie is not None and self._is_token(cookie.value)

    async def _redirect(self, scope: Scope, send: Send, query: str, host: str) -> None:
        # Lax rather than Strict: a browser would not send a strict cookie when the link was opened from a mail.
        cookie = f"{_cookie_name(host)}={self.token}; Path=/; HttpOnly; SameSite=Lax"
        # A path that begins with two slashes would lead to another host.
        path = "/" + scope["raw_path"].decode("latin-1").lstrip("/") if scope.get("raw_path") else "/"
        place = path + (f"?{query}" if query else "")
        added = [(b"location", place.encode("latin-1", "replace")), (b"set-cookie", cookie.encode())]
        await _answer(send, 303, b"", [*added, (b"cache-control", b"no-store")])


def local_hosts(host: str, port: int) -> frozenset[str] | None:
    """The values of the header Host for a server bound to `host`; None if others can reach it by names unknown here."""
    if host in ("127.0.0.1", "localhost", "::1"):
        return frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]"))
    if host in ("0.0.0.0", "::", ""):
        return None
    return frozenset({f"[{host}]:{port}" if ":" in host else f"{host.lower()}:{port}"})


def _same_site(headers: dict[str, str], host: str) -> bool:
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or origin in (f"http://{host}", f"https://{host}")


def _cookie_name(host: str) -> str:
    """Cookies are shared by the ports of a host: the name of each server's has its port."""
    port = host.rpartition(":")[2]
    return f"alexnet-{port}" if port.isdigit() else "alexnet"


async def _refuse(send: Send, status: int, detail: str) -> None:
    headers = [(b"content-type", b"application/json")]
    headers += [(b"www-authenticate", b"Bearer")] * (status == 401)
    await _answer(send, status, json.dumps({"detail": detail}).encode(), headers)


async def _answer(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length, *SECURITY_HEADERS]})
    await send({"type": "http.response.body", "body": body})
