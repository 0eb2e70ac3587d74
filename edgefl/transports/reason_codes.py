"""Reason codes of MQTT 5, any of them in any packet.

paho-mqtt knows which code may stand in which packet, and ends the connection at any other one: mosquitto answers a
message that is too long with PUBACK 0x95, which MQTT 5 (section 2.4) allows in CONNACK and DISCONNECT only. Brokers and
future versions have others. A code from 0x80 is a failure, whatever it is called.
"""

from __future__ import annotations

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

_ANSWERS = (
    PacketTypes.CONNACK, PacketTypes.PUBACK, PacketTypes.SUBACK, PacketTypes.UNSUBACK, PacketTypes.DISCONNECT
)  # fmt: skip


def know_all() -> None:
    """Let paho decode every code in every answer of a broker; its own names stay as they are."""
    known = ReasonCode.names
    ReasonCode.names = {code: _named(code, known.get(code, {})) for code in range(256)}


def _named(code: int, names: dict[str, list[int]]) -> dict[str, list[int]]:
    """The names of one code, by packet: those that paho has, and one for all the other packets."""
    missing = [packet for packet in _ANSWERS if not any(packet in packets for packets in names.values())]
    if not missing:
        return names
    name = f"{next(iter(names), 'reason code')} (0x{code:02x})"
    return {**names, name: missing}
