"""Federation: what the operator says of one federation, in federation.toml."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from ..errors import UsageError
from ..protocol.topics import ROOT, check_federation, check_root
from .broker_files import GUARD, HOME


def _is_host(text: str) -> bool:
    """Whether it can be a name or an address. Colons are in an IPv6 address alone, at least two."""
    fits = bool(text) and text.isascii() and text.isprintable() and not set(text) & set(" /@*")
    return fits and text.count(":") != 1


class Federation(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """federation.toml"""

    federation: Annotated[str, Meta(description="Name of the federation: a-z, 0-9 and '-'.", examples=["my-fleet"])]
    broker: Annotated[
        str, Meta(description="Name or address by which clients reach the broker.", examples=["broker.example.org"])
    ]
    also: Annotated[
        list[str],
        Meta(description="The broker's other names and addresses. After a change: edgefl keys renew DIR --broker."),
    ] = []
    port: Annotated[int, Meta(ge=1, le=65535, description="Port of the broker's TLS listener.")] = 8883
    enrol_port: Annotated[
        int, Meta(ge=1, le=65535, description="Port at which devices of a batch ask to be enrolled.")
    ] = 8884
    root: Annotated[str, Meta(description="Where the topics of all federations begin: one or two levels.")] = ROOT
    days: Annotated[
        int, Meta(ge=1, le=7300, description="How long certificates hold that are issued from now on, in days.")
    ] = 825
    home: Annotated[str, Meta(description="Where the broker's machine has the files of broker/.")] = HOME
    guard: Annotated[str, Meta(description="Where the broker's machine has the guard, its plug-in.")] = GUARD

    def __post_init__(self) -> None:
        check_federation(self.federation)
        check_root(self.root)
        for host in (self.broker, *self.also):
            if not _is_host(host):
                raise UsageError(
                    f"broker {host!r} is no name or address: give the host alone, as broker.example.org; --port and "
                    "`port` in federation.toml say the port"
                )

    @property
    def url(self) -> str:
        return self._url(self.port)

    @property
    def enrol_url(self) -> str:
        """Where devices of a batch ask to be enrolled."""
        return self._url(self.enrol_port)

    def _url(self, port: int) -> str:
        host = f"[{self.broker}]" if ":" in self.broker else self.broker
        return f"mqtts://{host}:{port}"
