"""Our own TLS certificate, looked at before we connect: whether it is ours, who has issued it, and when it holds.

A broker that refuses a certificate closes the connection, and often that is all that it says. OpenSSL itself looks
here, in a handshake in memory between a client that has the certificate and a server that trusts its authority; ssl has
no other public way to verify a certificate or to read one, and cryptography would be a dependency of each device.
"""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

from msgspec import Struct

from ..errors import UsageError
from ..transports.endpoint import TlsConfig, why
from ..transports.lean import ssl
from .wall_clock import is_trusted

SOON_S = 30 * 86400.0
NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which ssl has no name for
FLIGHTS = 4  # of a handshake, at most
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Certificate(Struct, frozen=True):
    """What a certificate says: its common name, and when it holds, in Unix time."""

    name: str
    begins: float
    ends: float


def check(tls: TlsConfig | None, name: str | None, now: float | None = None) -> str:
    """What to warn of, "" of nothing. UsageError if a restart can't help: a file can't be used, or our certificate is
    expired, another's, or foreign.

    `name` is what the certificate must be issued to, by the authority of `tls.ca`. None: where a broker knows its
    clients otherwise, only dates count. A clock that can't be trusted makes nothing expire, since a machine without a
    battery for its clock may start with any time.
    """
    if tls is None or tls.cert is None:
        return ""
    tls.check()
    now = time.time() if now is None else now
    try:
        found = read(tls, anchor=tls.cert if name is None else tls.ca)
    except UsageError:
        if name is None:
            return ""
        raise
    if name is not None and found.name != name:
        raise UsageError(
            f"{tls.cert} is the certificate of {found.name!r}, and must be that of {name!r}: unpack what `edgefl keys` "
            f"has made for {name!r}"
        )
    return _dates(tls.cert, found, now)


def _dates(path: str, found: Certificate, now: float) -> str:
    clock = f"this machine's clock shows {_date(now)}"
    if now < found.begins:
        return f"{path} holds from {_date(found.begins)} on, and {clock}: no connection until the clock is set"
    if now > found.ends and is_trusted(now):
        raise UsageError(
            f"{path} has expired on {_date(found.ends)}, and {clock}: put a new one in its place (edgefl keys renew)"
        )
    return f"{path} expires on {_date(found.ends)}, and {clock}: renew it" if now > found.ends - SOON_S else ""


def read(tls: TlsConfig, anchor: str | None) -> Certificate:
    """What our certificate says; UsageError unless that in the file `anchor` has issued it, or is the same one."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    server.verify_mode = ssl.CERT_REQUIRED
    server.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN | NO_CHECK_TIME
    try:
        server.load_verify_locations(anchor)
        for context in (server, client):
            context.load_cert_chain(tls.cert or "", tls.key)
        seen = _handshake(server, client)
    except ssl.SSLCertVerificationError as error:
        raise UsageError(
            f"{tls.cert} is foreign: the authority of {anchor} has not issued it ({error.verify_message}); both must "
            "come from one folder of `edgefl keys`"
        ) from None
    except OSError as error:
        raise UsageError(f"{tls.cert} can't be used ({why(error)}): copy it again, with its key") from None
    names = [value for part in seen["subject"] for key, value in part if key == "commonName"]
    return Certificate(
        names[0] if names else "", _unix_s(seen["notBefore"]),
        _unix_s(seen["notAfter"]),
    )  # fmt: skip


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, Any]:
    """The certificate of the client, as the server has verified it."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(up, down, server_side=True)
    theirs = client.wrap_bio(down, up)
    for turn in range(FLIGHTS):
        with suppress(ssl.SSLWantReadError):
            (ours if turn % 2 else theirs).do_handshake()
    return ours.getpeercert() or {}


def _unix_s(text: str) -> float:
    """Of "Jun  9 12:00:00 2027 GMT", as ssl.cert_time_to_seconds, which imports calendar and locale: 0.5 MB."""
    month, day, clock, year, _ = text.split()
    hours, minutes, seconds = map(int, clock.split(":"))
    when = datetime(int(year), MONTHS.index(month) + 1, int(day), hours, minutes, seconds, tzinfo=timezone.utc)
    return when.timestamp()


def _date(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
