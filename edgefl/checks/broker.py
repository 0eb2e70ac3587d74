"""The broker: reached, its MQTT version and limits, QoS 1 and retained messages, and what it lets this client do."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Protocol

from ..errors import UsageError
from ..hosting.own_certificate import SOON_S
from ..transports.events import Message, Published
from ..transports.mqtt import PUBLISH_OVERHEAD
from ..transports.settings import MqttConfig
from .probe import NO_READERS, Probe, Reached, endpoint_of, names_itself, reach, speaks_tls
from .report import Finding, ok, parted, problem, skipped, warning

CLEARED_S = 1.5  # for what was left there; a running aggregator clears what is not its own
WAIT_S = 4.0  # for what is retained, and for the broker's answers
SCRATCH = "edgefl-doctor/scratch"  # always the same, since brokers keep memory for every topic that they have seen
TOPIC_BYTES = 200  # of the longest topic, at most
BESIDE = (
    "not tried: {what} runs here, and a broker that takes a client's id from its certificate or user name would throw "
    "it out; its own log says how it fares. Stop it for this check"
)


@dataclass(frozen=True)
class Visit:
    """What a visit has shown. `skipped` says why MQTT was not tried, `refused` why the broker did not take us."""

    where: str
    reached: Reached
    skipped: str = ""
    refused: str = ""
    tls_port: bool = False
    protocol: str = ""
    limits: Any = None
    max_packet_bytes: int | None = None
    messages: dict[str, Message] = field(default_factory=dict)
    answers: dict[str, Published] = field(default_factory=dict)
    denied: tuple[str, ...] = ()

    @property
    def is_in(self) -> bool:
        """Whether the broker took us."""
        return not (self.reached.refused or self.skipped or self.refused)


class Visitor(Protocol):
    """What these checks need to know of their subject."""

    @property
    def visit(self) -> Visit: ...

    @property
    def part_bytes(self) -> int: ...


def go(config: MqttConfig, own_id: str, *, running: str, ask: Callable[[Probe], None]) -> Visit:
    """Reach the broker, and `ask` it. `running` names the daemon that runs with this configuration, "" if none
    does."""
    try:
        endpoint = endpoint_of(config)
    except UsageError as error:
        return Visit("[mqtt]", Reached(0.0, refused=str(error)))
    reached = reach(endpoint)
    if reached.refused:
        return Visit(str(endpoint), reached)
    if running and names_itself(config):
        return Visit(str(endpoint), reached, skipped=BESIDE.format(what=running))
    with Probe(config, own_id) as probe:
        if probe.refused:
            hidden = endpoint.tls is None and speaks_tls(endpoint)
            return Visit(str(endpoint), reached, refused=probe.refused, tls_port=hidden, protocol=probe.protocol)
        ask(probe)
        return Visit(
            str(endpoint), reached, protocol=probe.protocol, limits=probe.limits,
            max_packet_bytes=probe.max_packet_bytes, messages=probe.messages, answers=probe.answers,
            denied=tuple(probe.denied),
        )  # fmt: skip


def retained_round_trip(probe: Probe, topic: str) -> None:
    """Leave a retained message, read it back, and clear it. `retains` tells how that went."""
    token = secrets.token_hex(8).encode()
    probe.publish(topic, token, retain=True)
    probe.wait(lambda: topic in probe.answers, WAIT_S)
    probe.subscribe(topic)
    if not probe.wait(lambda: _is_kept(probe, topic) or bool(probe.denied), CLEARED_S):
        probe.publish(topic, token, retain=True)  # an aggregator that runs has cleared the first one
        probe.wait(lambda: topic in probe.messages, WAIT_S)
    stored = probe.answers.pop(topic, None)
    if stored is None or stored.ok:
        probe.publish(topic, b"", retain=True)
        probe.wait(lambda: topic in probe.answers, WAIT_S)
    if stored is not None:
        probe.answers[topic] = stored
    probe.unsubscribe(topic)


def _is_kept(probe: Probe, topic: str) -> bool:
    message = probe.messages.get(topic)
    return message is not None and message.retain


# Checks


def reached(subject: Visitor) -> Finding:
    """TCP and TLS, and the dates of the broker's certificate."""
    visit = subject.visit
    found = visit.reached
    if found.refused:
        text, todo = parted(found.refused, "check [mqtt] url, that the broker runs and listens there, and the firewall")
        return problem(f"{visit.where}: {text}", todo)
    text = f"{visit.where} in {1000 * found.seconds:.0f} ms{found.tls and f', {found.tls}'}"
    if found.ends is None:
        return ok(text)
    text += f", its certificate holds until {datetime.fromtimestamp(found.ends, timezone.utc):%Y-%m-%d}"
    if found.ends - time.time() < SOON_S:
        return warning(text, "the operator renews it: edgefl keys renew DIR --broker")
    return ok(text)


def mqtt(subject: Visitor) -> Iterator[Finding]:
    """MQTT version, limits, QoS 1 and retained messages."""
    visit = subject.visit
    if visit.reached.refused:
        yield skipped("the broker is not reached")
    elif visit.skipped:
        yield skipped(visit.skipped)
    elif visit.tls_port:
        yield problem(f"{visit.where} hangs up on plain MQTT: TLS is spoken there", "write mqtts:// in [mqtt] url")
    elif visit.refused:
        advice = "check port, user, password and certificate; the broker's log tells its side"
        yield problem(*parted(visit.refused, advice))
    else:
        yield ok(", ".join(_limits(visit)))
        yield from _lacks(visit, subject.part_bytes)


def _limits(visit: Visit) -> list[str]:
    named = visit.limits
    words = [f"MQTT {visit.protocol}" + (", which hides refusals" if visit.protocol != "5" else "")]
    size = visit.max_packet_bytes
    words.append(f"packets of {size} bytes" if size else "no limit of a packet's length named")
    for name, what in (("ReceiveMaximum", "in flight"), ("ServerKeepAlive", "seconds of keep-alive")):
        if (value := getattr(named, name, None)) is not None:
            words.append(f"{value} {what}")
    return words


def _lacks(visit: Visit, part_bytes: int) -> Iterator[Finding]:
    named, advice = visit.limits, "choose another broker, or allow it there"
    if getattr(named, "MaximumQoS", 2) < 1:
        yield problem("the broker has no QoS 1, by which all messages go", advice)
    if getattr(named, "RetainAvailable", 1) == 0:
        yield problem("the broker keeps no retained messages, which manifest, round and model are", advice)
    needed = part_bytes + TOPIC_BYTES + PUBLISH_OVERHEAD
    if visit.max_packet_bytes is not None and visit.max_packet_bytes < needed:
        yield warning(
            f"the broker takes packets of {visit.max_packet_bytes} bytes, and parts are {part_bytes}",
            f"raise max_packet_size in the broker to {needed}, or lower [codec] part_bytes in aggregator.toml",
        )


def retains(visit: Visit, topic: str, what: str) -> Finding:
    """What `retained_round_trip` has shown; `what` names the topic for a reader."""
    answer, message = visit.answers.get(topic), visit.messages.get(topic)
    if answer is not None and answer.refused:
        return problem(
            f"may not publish on {what}, {topic!r} ({answer.reason})", "let it write there in the broker's ACL"
        )
    if message is not None and message.retain:
        return ok(f"{what}: published, kept and read back with QoS 1")
    if message is not None and any(other.retain for other in visit.messages.values()):
        return ok(f"{what}: published and read back with QoS 1; other messages are retained")
    if message is not None:
        return problem(f"{what}: read back, but not as a retained message", "choose a broker that keeps them")
    todo = "let this client write and read there in the broker's ACL, and see that retained messages are on"
    return problem(f"{what}: what was published on {topic!r} does not come back", todo)


def nobody_listens(answer: Published) -> bool:
    """Whether a publish was allowed, and no client has subscribed there."""
    return answer.ok and answer.reason == NO_READERS
