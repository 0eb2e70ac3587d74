"""Lean: paho-mqtt without the modules that an MQTT connection does not use, until something does use them.

paho-mqtt imports ssl (with OpenSSL), hashlib (OpenSSL again) and urllib.request (with http.client and email) when it is
imported itself: 10 MB, for TLS, WebSockets and proxies. Whoever needs `Client` imports it from here, and paho gets
those modules once it uses them (later.py).

`ssl` here is for our own modules, for the same reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..later import Later, standing_in

__all__ = ["Client", "ssl"]

# Classes whose objects come from TLS alone, by which a connection asks of every error whether it is one of theirs.
OF_TLS = {
    "CertificateError", "SSLCertVerificationError", "SSLError", "SSLSocket", "SSLWantReadError", "SSLWantWriteError"
}  # fmt: skip

if TYPE_CHECKING:
    import ssl as ssl
else:
    ssl = Later("ssl", OF_TLS)

with standing_in(vars()["ssl"], Later("hashlib"), Later("urllib.request")):
    from paho.mqtt import client
    from paho.mqtt.client import Client

vars(client)["urllib"] = Later("urllib")  # whose `request` is an attribute only once it is really imported
