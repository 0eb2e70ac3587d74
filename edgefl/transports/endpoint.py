"""The address of an MQTT broker and the credentials for it: its URL and the TLS files."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from .. import private_files
from ..errors import UsageError

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

    def check(self) -> None:
        """UsageError unless the files can be used, and nobody else can read the key."""
        if (key := self.key or self.cert) is not None:  # a certificate's file may hold its key too
            private_files.check(Path(key), "the key")
        try:
            self.context()
        except OSError as error:
            raise UsageError(
                f"{self} can't be used ({why(error)}): check the paths, their permissions, "
                "and that certificate and key belong together"
            ) from None

    def context(self) -> ssl.SSLContext:
        """Read the files; raises OSError, or its subclass ssl.SSLError, if that fails."""
        context = ssl.create_default_context(cafile=self.ca)
        if self.cert:
            context.load_cert_chain(self.cert, self.key)
        return context


class Login(NamedTuple):
    """User name and password, where they are not in the URL."""

    user: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return f"Login({self.user!r})"


NO_LOGIN = Login()


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
    def parse(cls, url: str, tls: TlsConfig | None, login: Login = NO_LOGIN) -> Endpoint:
        """From a URL, TLS files for `mqtts://` only, and what the URL lacks of the login; UsageError if they can't be
        used.

        User and password end at the last @, so that a password may have any character. No error quotes them.
        """
        scheme, _, rest = url.partition("://")
        in_url, _, address = rest.rpartition("@")
        try:
            parts = urlsplit(f"{scheme}://{address}")
            port = parts.port
        except ValueError:
            raise UsageError(f"the MQTT broker's URL can't be read: {_FORM}") from None
        strange = parts.path not in ("", "/") or parts.query or parts.fragment
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or strange:
            raise UsageError(f"the MQTT broker's URL lacks a known scheme or a host: {_FORM}")
        secure = parts.scheme == "mqtts"
        if secure:
            tls = tls or TlsConfig()
            tls.check()
        elif tls is not None:
            raise UsageError("TLS files are configured but the MQTT broker's URL is mqtt://: write mqtts://")
        user, password = (unquote(word) or None for word in in_url.partition(":")[::2])
        if (user and login.user) or (password and login.password):
            raise UsageError("the MQTT broker's URL has a user or password, and so has [mqtt]: keep one of them")
        user, password = user or login.user, password or login.password
        if password and not user:
            raise UsageError("there is a password for the MQTT broker and no user: set [mqtt] username")
        host = parts.hostname.replace("%25", "%")  # before the zone of an IPv6 address (RFC 6874)
        return cls(host, port or (8883 if secure else 1883), user, password, tls)


def why(error: OSError) -> str:
    """The operator's words for a failed connection attempt."""
    if isinstance(error, ssl.SSLCertVerificationError):
        clock = ", is this machine's clock right?" if "not yet valid" in error.verify_message else ""
        return f"TLS: {error.verify_message}{clock}"
    return error.strerror or str(error) or type(error).__name__
