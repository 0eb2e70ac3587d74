"""`[dashboard]` of aggregator.toml: where the dashboard listens, and who may reach it (edgefl_broker/dashboard.py)."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct, field

from ..errors import UsageError
from ..private_files import check, check_readable


class DashboardConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The page, /api and /metrics. It needs the extra `dashboard`."""

    listen: Annotated[
        str | None,
        Meta(
            description="Address and port of the dashboard; without it, nothing is served. Only the loopback may be "
            "served without TLS.",
            examples=["127.0.0.1:8090"],
        ),
    ] = None
    cert: Annotated[
        str | None, Meta(description="TLS: the server's certificate.", examples=["/etc/edgefl/dashboard.crt"])
    ] = None
    key: Annotated[
        str | None,
        Meta(description="TLS: its key, which nobody else may read.", examples=["/etc/edgefl/dashboard.key"]),
    ] = None
    trusted_proxy: Annotated[
        list[str],
        Meta(
            description="Addresses of reverse proxies that do TLS in front of the dashboard; where there are any, only "
            "they may connect.",
            examples=[["127.0.0.1"]],
        ),
    ] = field(default_factory=list)
    hosts: Annotated[
        list[str],
        Meta(
            description="Names under which browsers reach it, beside localhost and addresses.",
            examples=[["fleet.example.org"]],
        ),
    ] = field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen at; UsageError."""
        host, colon, port = (self.listen or "").rpartition(":")
        try:
            where = str(ipaddress.ip_address(host.strip("[]") if host != "localhost" else "127.0.0.1"))
            number = int(port)
        except ValueError:
            where, number = "", -1
        if not (colon and where and 0 <= number <= 65535):
            raise UsageError(f"[dashboard] listen is {self.listen!r}: give an address and a port, as in 127.0.0.1:8090")
        return where, number

    @property
    def is_private(self) -> bool:
        """Whether only users of this machine reach it: then they may read without the token."""
        return ipaddress.ip_address(self.address[0]).is_loopback and not self.trusted_proxy

    def check(self) -> None:
        """UsageError unless it may listen there."""
        host, _ = self.address
        if (self.cert is None) != (self.key is None):
            raise UsageError("[dashboard] has one of cert and key: TLS needs both")
        if self.cert is not None and self.key is not None:
            check_readable(Path(self.cert), "[dashboard] cert")
            check(Path(self.key), "[dashboard] key")
        for proxy in self.trusted_proxy:
            try:
                ipaddress.ip_address(proxy)
            except ValueError:
                raise UsageError(f"[dashboard] trusted_proxy has {proxy!r}, which is no address") from None
        if not ipaddress.ip_address(host).is_loopback and self.cert is None and not self.trusted_proxy:
            raise UsageError(
                f"[dashboard] would send models and its token in the clear from {host}: listen at 127.0.0.1, or set "
                "cert and key, or trusted_proxy where a proxy does TLS"
            )
