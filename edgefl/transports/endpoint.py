"""The address of an MQTT broker and the credentials for it: its URL and the TLS files."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from ..errors import TransportError

_FORM = (
    "write mqtt://[user[:password]@]host[:port], or mqtts:// for TLS; an IPv6 address needs brackets, as in "
    "mqtt://[::1]:1883"
)


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """PEM files: the authority of the broker's certificate (None: the system's), our own certificate, its key."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    def context(self) -> ssl.SSLContext:
        """Read the files; raises OSError, or its subclass ssl.SSLError, if that fails."""
        context = ssl.create_default_context(cafile=self.ca)
        if self.cert:
            context.load_cert_chain(self.cert, self.key)
        return context


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A broker's address; `str()` of one is "host:port" ("[host]:port" in IPv6) and never shows the password."""

    host: str
    port: int
    user: str | None
    password: str | None = field(repr=False)
    tls: TlsConfig | None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, url: str, tls: TlsConfig | None) -> Endpoint:
        """From a URL, and TLS files for `mqtts://` only; raises TransportError if they cannot be used."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise TransportError(f"the MQTT broker's URL can't be read ({error}): {_FORM}") from None
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.path not in ("", "/"):
            raise TransportError(f"the MQTT broker's URL lacks a known scheme or a host: {_FORM}")
        secure = parts.scheme == "mqtts"
        if secure:
            tls = _readable(tls or TlsConfig())
        elif tls is not None:
            raise TransportError("TLS files are configured but the MQTT broker's URL is mqtt://: write mqtts://")
        user = unquote(parts.username) if parts.username else None
        password = unquote(parts.password) if parts.password else None
        host = parts.hostname.replace("%25", "%")  # before the zone of an IPv6 address (RFC 6874)
        return cls(host, port or (8883 if secure else 1883), user, password, tls)


def _readable(tls: TlsConfig) -> TlsConfig:
    try:
        tls.context()
    except OSError as error:
        raise TransportError(
            f"{tls} can't be used ({why(error)}): check the paths, their permissions, "
            "and that certificate and key belong together"
        ) from None
    return tls


def why(error: OSError) -> str:
    """The operator's words for a failed connection attempt."""
    if isinstance(error, ssl.SSLCertVerificationError):
        clock = ", is this machine's clock right?" if "not yet valid" in error.verify_message else ""
        return f"TLS: {error.verify_message}{clock}"
    return error.strerror or str(error) or type(error).__name__
