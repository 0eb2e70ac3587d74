"""`edgefl-agent claim`: a device that was flashed from a batch's image makes its keys and asks to be enrolled.

    enrol.json agent.toml.in ca.crt root.pub          from the image (`edgefl keys batch`)
    signing.key device.key device.csr                 made here; the private keys never leave this device
    device.crt agent.toml                             after the operator's approval; agent.toml is written last

It can be interrupted at any time, and begins where it was. `openssl` makes the TLS key: the agent needs no package for
something that is done once.

The listener has few places, and an operator takes his time: a device asks, hears that it has to wait, leaves, and comes
again. It speaks MQTT 3.1.1, where a clean session ends with its connection: the guard lets no other one in there.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import random
import ssl
import subprocess
import time
from pathlib import Path

import msgspec

from edgefl.atomic import write_atomically
from edgefl.errors import EdgeFLError, ProtocolError, UsageError
from edgefl.hosting import command
from edgefl.protocol.enrol import TEMPLATE, TICKET, Answer, Approval, Ask, EnrolTopics, Ticket, read, shown
from edgefl.protocol.topics import BATCH, Topics, check_device_id
from edgefl.transports.mqtt import LinkEvent, Login, Message, MqttLink, TlsConfig, Up
from edgefl.trust.ed25519 import SigningKey, new_seed
from edgefl.trust.key_files import ROOT_PUBLIC, SIGNING_KEY, read_public, read_seed, write_seed

ASK_EVERY_S, LONGEST_PAUSE_S, SLOWER = 10.0, 60.0, 1.5  # the pause between two questions grows by this factor
ANSWER_S = 10.0
CONFIG, KEY, CSR, CERTIFICATE, CA = "agent.toml", "device.key", "device.csr", "device.crt", "ca.crt"
log = logging.getLogger("edgefl.agent")


def main(argv: list[str]) -> int:
    """Exit code 0 once the device is enrolled, 1 failed, 2 wrong use."""
    parser = command.Parser(
        prog="edgefl-agent claim",
        description="Make this device's keys, and ask the operator to enrol it. Ends when the operator has.",
        example="edgefl-agent claim --dir /etc/edgefl --name pi-kitchen",
    )
    add = parser.add_argument_group("the claim").add_argument
    add("--dir", metavar="DIR", type=Path, required=True, help="the folder with the files of the batch's image")
    add("--name", metavar="NAME", help="the device id to ask for; without it, one that is made from the keys")
    add("--timeout", metavar="S", type=float, help="seconds to wait for the approval; without it, as long as it takes")
    command.add_common_options(parser, level="info")
    options = parser.parse_args(argv)
    return command.run(options, lambda: claim(options.dir, options.name, options.timeout))


def claim(folder: Path, name: str | None, timeout_s: float | None = None) -> None:
    """Ask until the operator has approved, and write what the agent starts from."""
    if (folder / CONFIG).exists():
        log.info("%s is there: this device is enrolled", folder / CONFIG)
        return
    ticket = _ticket(folder)
    key, csr = SigningKey(_seed(folder)), _request(folder)
    id = Ask.of(csr, key, "", ticket.federation).id
    wish = check_device_id(name or ticket.prefix + id.removeprefix(BATCH)[:8])
    ask = Ask.of(csr, key, wish, ticket.federation)
    log.info("asks to be enrolled as %s; compare this id before you approve it: %s", wish, shown(ask.id))
    approval = _Asking(folder, ticket, ask).run(timeout_s)
    _finish(folder, approval)
    log.info("enrolled as %s: edgefl-agent --config %s", approval.name, folder / CONFIG)


def _ticket(folder: Path) -> Ticket:
    try:
        return read(Ticket, (folder / TICKET).read_bytes())
    except (OSError, ProtocolError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(
            f"{folder / TICKET}: {why}: unpack the archive that `edgefl keys batch` has made into this folder"
        ) from None


def _seed(folder: Path) -> bytes:
    if not (folder / SIGNING_KEY).exists():
        write_seed(folder / SIGNING_KEY, new_seed())
    return read_seed(folder / SIGNING_KEY)


def _request(folder: Path) -> str:
    """The request for a TLS certificate, which is made with its key, once."""
    if not (folder / CSR).exists():
        key = _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
        write_atomically(folder / KEY, key.encode(), mode=0o600)
        words = ("req", "-new", "-batch", "-subj", "/CN=device", "-key", str(folder / KEY))
        write_atomically(folder / CSR, _openssl(*words).encode())
    return (folder / CSR).read_text()


def _openssl(*words: str) -> str:
    """Run openssl, whose files only their owner can read."""
    try:
        done = subprocess.run(
            ["openssl", *words], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, umask=0o077
        )
    except FileNotFoundError:
        raise UsageError("the device's TLS key is made by openssl, which is missing: apt-get install openssl") from None
    if done.returncode:
        raise EdgeFLError(f"openssl {words[0]} failed: {done.stderr.strip()[-300:]}")
    return done.stdout


class _Asking:
    """Asks at the batch's listener until the approval has come."""

    def __init__(self, folder: Path, ticket: Ticket, ask: Ask) -> None:
        self._ask, self._root = ask, read_public(folder / ROOT_PUBLIC)
        self._ticket, self._tls = ticket, TlsConfig(str(folder / CA))
        topics = EnrolTopics(Topics(ticket.federation, ticket.root))
        self._topic, self._answers = topics.ask(ticket.batch, ask.id), topics.answer(ticket.batch, ask.id)
        self._rng, self._told = random.Random(), ""

    def run(self, timeout_s: float | None) -> Approval:
        """The approval; EdgeFLError if the request is refused, or time is up."""
        until = math.inf if timeout_s is None else time.monotonic() + timeout_s
        pause_s = ASK_EVERY_S
        while time.monotonic() < until:
            approval = self._visit(until)
            if approval is not None:
                return approval
            time.sleep(max(0.0, min(pause_s * self._rng.uniform(0.5, 1.5), until - time.monotonic())))
            pause_s = min(pause_s * SLOWER, LONGEST_PAUSE_S)
        raise EdgeFLError(f"no approval within {timeout_s:g} s: start this again once the operator has approved")

    def _visit(self, until: float) -> Approval | None:
        """Connect, ask, hear the answer, and leave."""
        ticket, inbox = self._ticket, queue.SimpleQueue[LinkEvent]()
        link = MqttLink(
            ticket.url, self._ask.id, on_event=inbox.put, rng=self._rng, protocol="3.1.1", session_expiry_s=0,
            tls=self._tls, login=Login(ticket.batch, ticket.token), backoff_cap_s=60.0,
        )  # fmt: skip
        link.start()
        try:
            while time.monotonic() < until:
                try:
                    event = inbox.get(timeout=min(1.0, max(0.0, until - time.monotonic())))
                except queue.Empty:
                    continue
                if isinstance(event, Up):
                    link.subscribe([self._answers], 1)
                    link.publish(self._topic, msgspec.json.encode(self._ask), retain=False)
                    until = min(until, time.monotonic() + ANSWER_S)
                if isinstance(event, Message):
                    return self._read(event.payload)
            return None
        finally:
            link.stop()

    def _read(self, payload: bytes) -> Approval | None:
        try:
            return Approval.open(payload, self._root, self._ask.id)
        except ProtocolError as error:
            try:
                answer = read(Answer, payload)
            except ProtocolError:
                log.warning("an answer is dropped: %s", error)
                return None
        if answer.state == "refused":
            raise EdgeFLError(f"the request is refused: {answer.reason}")
        if answer.state != self._told:
            self._told = answer.state
            log.info("the request has arrived, and waits for the operator: edgefl keys approve")
        return None


def _finish(folder: Path, approval: Approval) -> None:
    """Write the certificate, then the configuration; EdgeFLError if they are not what this device can use."""
    check_device_id(approval.name)
    write_atomically(folder / CERTIFICATE, approval.certificate.encode(), mode=0o600)
    try:
        ssl.create_default_context(cafile=str(folder / CA)).load_cert_chain(folder / CERTIFICATE, folder / KEY)
    except (OSError, ssl.SSLError) as error:
        os.unlink(folder / CERTIFICATE)
        raise EdgeFLError(f"the certificate is not for this device's key ({error}): ask the operator") from None
    text = (folder / TEMPLATE).read_text().replace("{name}", approval.name)
    write_atomically(folder / CONFIG, text.encode(), mode=0o600)
