"""The matrix: what each role can do on each topic, tried on a real mosquitto with the generated files and the guard.

Nothing here believes an answer of the broker. A second mosquitto, to which the first one passes on everything that it
has accepted, tells what was published; and what a client has received tells what it may read.

    python tests/support/acl_matrix.py docs/acl-matrix.md    # writes the page: make acl-matrix
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

from brokers import Mosquitto, eventually
from guarded import GuardedMosquitto, RawClient

BASE, OTHER = "edgefl/2/fleet", "edgefl/2/other"
ROLES = {
    "aggregator": "aggregator",
    "device": "pi-1",
    "viewer": "viewer-v",
    "helper": "helper-h",
    "batch": "batch-b",
    "revoked device": "pi-9",
}
CLIENT_IDS = {"batch": "batch-0a"}  # of all others, the user name takes its place
LAST = {"batch": "enrol/batch-b/batch-0a/answer"}  # what it can certainly read; for all others it is the round
# As rows of the table: topics below the federation's, with the client's own name for {id}.
TOPICS = (
    "manifest", "round", "aggregator", "model/0/0", "summary", "fleet/0",
    "d/{id}/status", "d/{id}/u/1/0", "d/{id}/inbox", "d/{id}/u/01/0", "d/{id}/u/1/65535", "d/{id}/other",
    "d/pi-2/status", "d/pi-2/u/1/0", "d/pi-2/inbox",
    "helper/{id}/ask/0", "helper/{id}/answer/0", "helper/{id}/ask", "helper/helper-2/ask/0", "helper/helper-2/answer/0",
    "enrol/{id}/batch-0a/ask", "enrol/{id}/batch-0a/answer", "enrol/{id}/batch-0b/ask", "enrol/{id}/batch-0b/answer",
    "other federation: manifest", "other federation: d/{id}/status", "other federation: d/{id}/u/1/0",
)  # fmt: skip
FILTERS = (
    "#", "$share/g/manifest", "d/+/status", "d/+/u/+/+", "d/+/inbox", "d/{id}/#", "model/+/+", "fleet/+",
    "helper/{id}/ask/+", "helper/+/ask/+", "helper/{id}/#",
    "all topics: #", "all topics: +/+/+/manifest", "all topics: $SYS/#",
)  # fmt: skip
LETTERS = {
    "publish": "p",
    "retain": "r",
    "will": "w",
    "retained will": "v",
    "too long": "l",
    "subscribe": "s",
}


def full(topic: str, name: str) -> str:
    """The topic or filter of a row, for the client `name`."""
    topic = topic.replace("{id}", name)
    if topic.startswith("other federation: "):
        return f"{OTHER}/{topic.removeprefix('other federation: ')}"
    if topic.startswith("$share/g/"):
        return f"$share/g/{BASE}/{topic.removeprefix('$share/g/')}"
    return topic.removeprefix("all topics: ") if topic.startswith("all topics: ") else f"{BASE}/{topic}"


class Matrix:
    """`allowed(role, action, topic)` tries it. A context manager."""

    def __init__(self) -> None:
        self._witness_broker = Mosquitto()
        self.broker = GuardedMosquitto(
            "fleet", viewers=("viewer-v",), helpers=("helper-h",), batches={"batch-b": "token"},
            extra=f"connection witness\naddress 127.0.0.1:{self._witness_broker.port}\ntopic # both 1\n"
            "try_private true\nrestart_timeout 1\nbridge_protocol_version mqttv50\nnotifications false\n",
        )  # fmt: skip
        self._clients: dict[str, RawClient] = {}
        self._numbers = itertools.count()
        self._witness = RawClient(self._witness_broker.port, None)
        self._witness.subscribe("#")
        self._marker = self.broker.client("aggregator")
        eventually(lambda: self._passes_on(b"hello"), 10.0)
        self.broker.client(ROLES["revoked device"]).close()
        self.broker.write(revoked=(ROLES["revoked device"],))  # in the guard's list; not in the authority's
        eventually(lambda: "guard: 1 revoked names" in self.broker.log)

    def _passes_on(self, payload: bytes, patience_s: float = 0.5) -> bool:
        self._marker.publish(f"{BASE}/aggregator", payload)
        return self._witness.wait_for(f"{BASE}/aggregator", payload, patience_s)

    def _client(self, role: str) -> RawClient:
        if role == "aggregator":
            return self._marker
        client = self._clients.get(role)
        if client is None or client.left.is_set():
            client = self._clients[role] = self.broker.client(ROLES[role], client_id=CLIENT_IDS.get(role, "any"))
        return client

    def _arrived(self, topic: str, payload: bytes) -> bool:
        """Whether the witness has this message, once it has one that was sent later."""
        marker = b"marker %d" % next(self._numbers)
        assert self._passes_on(marker, 10.0)
        return any(message[:2] == (topic, payload) for message in self._witness.messages)

    def allowed(self, role: str, action: str, topic: str) -> bool:
        """Whether a client of `role` can do that."""
        name = full(topic, ROLES[role])
        if action == "subscribe":
            return self._reads(role, name)
        payload = b"%s %d" % (role.encode(), next(self._numbers))
        if action == "too long":
            payload += bytes(
                66560 if "/u/" in name or "/answer/" in name or "/ask/" in name or role == "aggregator" else 9000
            )
        if "will" in action:
            self._die(role, (name, payload, action == "retained will"))
        else:
            self._client(role).publish(name, payload, retain=action == "retain")
        return self._arrived(name, payload)

    def _die(self, role: str, will: tuple[str, bytes, bool]) -> None:
        name = ROLES[role]
        if role != "aggregator" and role in self._clients:
            self._clients.pop(role).close()
        ends = f"Client {CLIENT_IDS.get(role, name)} closed its connection"
        before = self.broker.log.count(ends)
        if role == "aggregator":
            self._marker.close()
        client = self.broker.client(name, will=will, client_id=CLIENT_IDS.get(role, "any"))
        client.abort()
        eventually(lambda: self.broker.log.count(ends) > before or client.left.is_set())
        if role == "aggregator":
            self._marker = self.broker.client(name)

    def _reads(self, role: str, name: str) -> bool:
        """Subscribe, then publish on every topic from outside, where no list forbids it."""
        client, last = self._client(role), f"{BASE}/{LAST.get(role, 'round')}"
        reading = client.subscribe(last)
        client.subscribe(name)
        payload, marker = b"read me %d" % next(self._numbers), b"read marker %d" % next(self._numbers)
        for topic in dict.fromkeys(full(topic, ROLES[role]) for topic in TOPICS):
            if topic != last or name == topic:
                self._witness.send(topic, payload)
        self._witness.publish(last, marker)
        if reading == 1 and not client.left.is_set():
            assert client.wait_for(last, marker)
        else:
            self._arrived("", b"")
        client.unsubscribe(name)
        return any(message[1] == payload for message in client.messages)

    def too_long_a_packet_ends(self, role: str) -> bool:
        """Whether a packet above max_packet_size ends the sender's connection, and arrives nowhere."""
        topic, client = f"{BASE}/d/{ROLES[role]}/status", self._client(role)
        client.send(topic, bytes(100_000))
        return client.left.wait(5.0) and not self._arrived(topic, bytes(100_000))

    def keeps_its_connection(self, role: str, thief: str) -> bool:
        """Whether a client stays connected while one of role `thief` connects with its name as client id."""
        client = self._client(role)
        if thief in self._clients:
            self._clients.pop(thief).close()
        self.broker.client(ROLES[thief], client_id=ROLES[role]).close()
        self._passes_on(b"still here %d" % next(self._numbers))
        return not client.left.is_set()

    def __enter__(self) -> Matrix:
        return self

    def __exit__(self, *exc: object) -> None:
        for client in (*self._clients.values(), self._marker, self._witness):
            client.close()
        self.broker.__exit__()
        self._witness_broker.__exit__()


PAGE = """\
# Who may do what at the broker

Written by `make acl-matrix`, which tries each case on mosquitto with the files of `edgefl keys` and the guard: do not
edit this page. A case counts as allowed if the message arrived, whatever the broker answered. Topics are below
`edgefl/2/{{federation}}/`, `{{id}}` is the client's own name, and `pi-2` and `helper-2` are other clients.

A `batch` is a device that has no certificate yet: it connects with the token of its batch, and `batch-0a` for its
client id.

`p` publish, `r` publish retained, `w` leave a will, `v` leave a retained will, `l` publish a message that is longer
than any honest one on that topic ({lengths}), `s` subscribe and receive.

{table}

A packet above `max_packet_size` ends its sender's connection. A client that connects with another one's client id
gets its own name for one, and disconnects nobody.
"""


def cells(matrix: Matrix, row: str) -> list[str]:
    """The letters of what each role can do on a topic, or whether it can read by a filter."""
    actions = LETTERS if row in TOPICS else {"subscribe": "s"}
    can = [[letter for action, letter in actions.items() if matrix.allowed(role, action, row)] for role in ROLES]
    return ["".join(letters) or "–" for letters in can]


def page(matrix: Matrix) -> str:
    """The whole matrix as a page."""
    lines = [f"| topic or filter | {' | '.join(ROLES)} |", "|---" * (len(ROLES) + 1) + "|"]
    lines += [f"| `{row}` | {' | '.join(cells(matrix, row))} |" for row in (*TOPICS, *FILTERS)]
    for role, thief in itertools.product(ROLES, ("device", "viewer", "helper")):
        assert role in (thief, "batch", "revoked device") or matrix.keeps_its_connection(role, thief)
    assert matrix.too_long_a_packet_ends("device")
    return PAGE.format(table="\n".join(lines), lengths="above 66,560 bytes on topics of parts, else above 9,000")


if __name__ == "__main__":
    with Matrix() as tried:
        Path(sys.argv[1]).write_text(page(tried))
