"""The address of an MQTT broker and the credentials for it: its URL and the TLS files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from .. import private_files
from ..errors import UsageError
from .lean import ssl

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
        """UsageError, which names the file, unless the files can be used, and nobody else can read the key."""
        if (key := self.key or self.cert) is not None:  # a certificate's file may hold its key too
            private_files.check(Path(key), "the key")
        for name, path in (("the certificate", self.cert), ("the authority's certificate", self.ca)):
            if path is not None:
                private_files.check_readable(Path(path), name)
        try:
            ssl.create_default_context(cafile=self.ca)
        except ssl.SSLError:
            raise UsageError(f"the authority's certificate {self.ca} is not PEM: copy it again") from None
        try:
            self.context()
        except ssl.SSLError as error:
            mixed = error.reason == "KEY_VALUES_MISMATCH"
            problem = "do not belong together: copy both" if mixed else "can't be used: copy both, as PEM and whole,"
            raise UsageError(
                f"the certificate {self.cert} and the key {key} {problem} from one bundle or folder"
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
    """The operator's words for a connection that failed."""
    if not isinstance(error, ssl.SSLError):
        return error.strerror or str(error) or type(error).__name__
    if isinstance(error, ssl.SSLCertVerificationError):
        words = _VERIFYING.get(error.verify_code, "")
        return f"TLS: {words or 'the certificate of the broker is refused'} ({error.verify_message})"
    reason = error.reason or ""
    words = next((words for name, words in _ALERTS.items() if name in reason), "")
    return f"TLS: {words} ({reason})" if words else f"TLS: {reason or error}"


_FOREIGN = "the broker's certificate is not from the authority of [mqtt] ca: compare ca.crt here and on the broker"
_VERIFYING = {  # by OpenSSL's X509_V_ERR_*
    9: "the broker's certificate is not yet valid: is this machine's clock right?",
    10: "the broker's certificate has expired: renew it; or is this machine's clock wrong?",
    18: _FOREIGN,
    19: _FOREIGN,
    20: _FOREIGN,
    21: _FOREIGN,
    62: "the broker's certificate is for another name than that in [mqtt] url",
    64: "the broker's certificate is for another address than that in [mqtt] url",
}
_ALERTS = {  # what the broker says, or OpenSSL of what it sends, by a part of OpenSSL's reason
    "CERTIFICATE_EXPIRED": "the broker says that our certificate has expired: renew it, and look at the broker's clock",
    "CERTIFICATE_REVOKED": "the broker says that our certificate is revoked: ask the operator for a new one",
    "UNKNOWN_CA": "the broker does not know the authority of our certificate: it belongs to another federation",
    "BAD_CERTIFICATE": "the broker refuses our certificate: ask the operator for a new one",
    "CERTIFICATE_UNKNOWN": "the broker refuses our certificate: ask the operator for a new one",
    "CERTIFICATE_REQUIRED": "the broker wants a certificate: set [mqtt] cert and key, or [keys] dir",
    "HANDSHAKE_FAILURE": "the broker wants a certificate, or other ciphers: set [mqtt] cert and key, or [keys] dir",
    "WRONG_VERSION_NUMBER": "the broker speaks no TLS on this port: compare the port with its listeners",
}
