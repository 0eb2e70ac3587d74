"""Gatekeeper: which HTTP requests the dashboard answers. It stands before everything else that it serves.

Against a page elsewhere that a browser of this machine has open (cross-site requests, DNS rebinding): a request must
name a host that is ours, and come from a page of ours or from no page. Against other users: a token for every action,
for a model, and, unless only this machine can connect, for reading too. The token is a file in state_dir, 0600.
"""

from __future__ import annotations

import hmac
import secrets
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgefl.atomic import write_atomically
from edgefl.board.page import POLICY
from edgefl.hosting.dashboard import DashboardConfig
from edgefl.private_files import read_secret

from .http_answers import refusal

TOKEN_FILE = "dashboard.token"
BODY_BYTES = 4096
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
PUBLIC = ("/", "/board.css", "/board.js")  # the page itself has no data


def token_of(folder: Path) -> str:
    """The token in the state folder, made at the first start. OSError; UsageError if others can read it."""
    path = folder / TOKEN_FILE
    if not path.exists():
        write_atomically(path, secrets.token_urlsafe(32).encode() + b"\n", mode=0o600)
    return read_secret(path, "the dashboard's token")


class Gatekeeper:
    """Refuses a request, or passes it on and completes the answer's headers."""

    def __init__(self, app: ASGIApp, config: DashboardConfig, token: str) -> None:
        self._app, self._config, self._token = app, config, token.encode()
        self._hosts = {"localhost", *(name.lower() for name in config.hosts)}
        self._proxies = {_address(proxy) for proxy in config.trusted_proxy}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def complete(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        app = self._refusal(scope, Headers(scope=scope)) or self._app
        await app(scope, receive, complete)

    def _refusal(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        """What to answer instead; None if the request may pass."""
        is_action = scope["method"] not in ("GET", "HEAD")
        if not self._may_connect(scope):
            return refusal(403, "only the trusted proxy may connect")
        if not self._is_ours(headers.get("host", "")):
            return refusal(421, "this host name is not the dashboard's: add it to [dashboard] hosts")
        if not self._comes_from_us(headers):
            return refusal(403, "a page of another site may not use the dashboard")
        if is_action and headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return refusal(415, "an action needs Content-Type: application/json")
        if not headers.get("content-length", "0").isdecimal() or int(headers.get("content-length", "0")) > BODY_BYTES:
            return refusal(413, f"the body is longer than {BODY_BYTES} bytes")
        if self._needs_token(scope["path"], is_action) and not self._has_token(headers):
            return refusal(401, f"the token in {TOKEN_FILE} in the aggregator's state_dir is needed")
        return None

    def _may_connect(self, scope: Scope) -> bool:
        client = scope.get("client")
        return not self._proxies or (client is not None and _address(client[0]) in self._proxies)

    def _is_ours(self, host: str) -> bool:
        """Whether the name or address in `host`, which may have a port, is one of ours. A page that rebinds its name
        to our address has that name; an address can't be rebound."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self._hosts or _address(name) is not None

    def _comes_from_us(self, headers: Headers) -> bool:
        """Whether the request comes from a page of ours or from none, as far as the browser says."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        if origin is not None and origin.rpartition("//")[2].lower() != headers.get("host", "").lower():
            return False
        is_link = headers.get("sec-fetch-mode") == "navigate"  # to follow one shows the page, and changes nothing
        return site in ("none", "same-origin") or (is_link and origin is None)

    def _needs_token(self, path: str, is_action: bool) -> bool:
        if path in PUBLIC:
            return is_action
        return is_action or path.endswith("/model.onnx") or not self._config.is_private

    def _has_token(self, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """The address; an IPv4 address that an IPv6 socket has mapped is IPv4 again. None if the text is no address."""
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found
