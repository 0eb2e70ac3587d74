"""RecordConfig: `[record]` of agent.toml, what `edgefl-agent record` keeps of sensors' messages."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from edgefl.errors import UsageError
from edgefl.transports.settings import MqttConfig

TIME = "time"  # the column that every row has
MOST_COLUMNS = 500  # SQLite has no more than 2000


class RecordConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What `edgefl-agent record` keeps of sensors' messages, in a ring that `ring:FILE` reads."""

    file: Annotated[str, Meta(description="The ring, a SQLite file that only this user reads.")] = (
        "/var/lib/edgefl/ring.db"
    )
    columns: Annotated[
        dict[str, str],
        Meta(
            description='The columns of the ring: each is "TOPIC", whose messages are a number or a text, or '
            '"TOPIC#FIELD", a field of the JSON object in its messages; FIELD may be a path, as in "values.hot".',
            examples=[{"temperature": "zigbee2mqtt/bench#temperature"}],
        ),
    ] = {}
    url: Annotated[
        str, Meta(description="The broker that has the sensors' messages: mqtt://host:1883, or mqtts://host:8883.")
    ] = "mqtt://127.0.0.1:1883"
    username: Annotated[str | None, Meta(description="Our user name there.", examples=["recorder"])] = None
    password_file: Annotated[
        str | None,
        Meta(
            description="The file whose first line is our password there, which nobody else may read.",
            examples=["/etc/edgefl/recorder-password"],
        ),
    ] = None
    ca: Annotated[
        str | None,
        Meta(description="TLS: the certificate authority's certificate.", examples=["/etc/ssl/certs/local-ca.pem"]),
    ] = None
    every_s: Annotated[
        float,
        Meta(
            ge=0,
            le=86400,
            description="Seconds between two rows, each of the newest values; no row while nothing comes. 0: a row for "
            "each message.",
        ),
    ] = 1.0
    stale_s: Annotated[
        float, Meta(gt=0, le=1e7, description="A value that is older than these seconds is a blank in the next row.")
    ] = 60.0
    max_rows: Annotated[
        int, Meta(ge=100, le=10**9, description="Rows of the ring; then the oldest sixteenth goes.")
    ] = 1_000_000
    max_mb: Annotated[
        float, Meta(ge=0.1, le=1e6, description="Megabytes of the ring; then the oldest sixteenth goes.")
    ] = 128.0
    commit_s: Annotated[
        float,
        Meta(
            gt=0,
            le=3600,
            description="Seconds between two writes to the disk: a power cut loses the rows since the last one.",
        ),
    ] = 60.0

    def mqtt(self) -> MqttConfig:
        """How to reach the sensors' broker."""
        return MqttConfig(
            self.url, username=self.username, password_file=self.password_file, ca=self.ca, session_expiry_s=0,
            reconnect_cap_s=60.0,
        )  # fmt: skip

    def sources(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Each column's topic, and the path to its field; UsageError."""
        if not self.columns:
            raise UsageError(
                '[record] columns is empty: write columns = { temperature = "TOPIC" }, as many as you need'
            )
        if len(self.columns) > MOST_COLUMNS:
            raise UsageError(f"[record] columns are {len(self.columns)}: at most {MOST_COLUMNS}")
        names = [name.lower() for name in self.columns]  # as SQLite compares them
        for name in self.columns:
            if name.lower() in (TIME, "id") or names.count(name.lower()) > 1 or not name.strip() or "\0" in name:
                raise UsageError(f"[record] columns: {name!r} can't name a column: choose another name")
        return {name: _source(name, text) for name, text in self.columns.items()}


def _source(name: str, text: str) -> tuple[str, tuple[str, ...]]:
    topic, mark, path = text.partition("#")
    if not topic or "+" in topic or "\0" in topic or (mark and not all(path.split("."))):
        raise UsageError(
            f"[record] columns: {name} = {text!r} is not TOPIC or TOPIC#FIELD: one topic, without wildcards"
        )
    return topic, tuple(path.split(".")) if mark else ()
