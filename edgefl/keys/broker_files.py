"""The files of one federation's MQTT broker: mosquitto.conf, acl and denied.

    mosquitto.conf    TLS, limits, persistence, and the guard (broker/guard/). Written once: an operator's changes stay
    acl               which client may read and write which topics; read by mosquitto at its start and on SIGHUP
    denied            revoked names, one a line; read by the guard within a second of a change

Four roles, told apart by the name in a client's certificate: `aggregator`, `viewer-NAME`, `helper-NAME`, and a device
for any other name. `acl` names the federation literally. mosquitto's ACL file can limit neither retained messages nor
subscriptions, sizes and rates: the guard does.

Not here: certificates and the list of what is revoked (the other modules of this package).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ..atomic import write_atomically
from ..errors import UsageError
from ..protocol.topics import AGGREGATOR_USER, Topics

HOME = "/etc/mosquitto/edgefl"  # where the broker's machine has these files
GUARD = "/usr/local/lib/edgefl/guard.so"
FILES = ("mosquitto.conf", "acl", "denied", "ca.crt", "server.crt", "server.key", "crl.pem")

_CONF = """\
# mosquitto for the EdgeFL federation {federation}: goes to /etc/mosquitto/conf.d/edgefl.conf, beside the distribution's
# mosquitto.conf, which names persistence_location and log_dest. The files that it names go to {home}/.

# ---- access: only clients with a certificate, and each only to its own topics
allow_anonymous false
acl_file {home}/acl

listener {port}
cafile {home}/ca.crt
certfile {home}/server.crt
keyfile {home}/server.key
tls_version tlsv1.2
require_certificate true
# The certificate's common name becomes the user name that the ACL speaks of, and the client id: no client can take the
# connection of another one by its id.
use_identity_as_username true
use_username_as_clientid true
# Revoked certificates. mosquitto reads the file at its start and on SIGHUP, and for new connections only. An expired
# list locks every client out.
crlfile {home}/crl.pem

# Small packets go at once, instead of waiting up to 40 ms for the acknowledgement of those before.
set_tcp_nodelay true

# ---- the guard: what an ACL file can't say (broker/guard/). mosquitto does not start without it.
plugin {guard}
plugin_opt_base {base}
# Revoked names, one a line. A client on the list is disconnected within a second, and denied everything.
plugin_opt_denied {home}/denied
# Most bytes in one message of a device: a part of its update, which is 1,024 less than max_packet_size; its status.
plugin_opt_part_bytes 66560
plugin_opt_status_bytes 8192
# What one device may do: messages and subscriptions a second, lasting and at once; of them statuses; bytes a second,
# lasting and at once, each way; subscriptions at a time; rounds that it sends updates of in a minute. What goes beyond
# is denied until there is room again. A model or an update of more than bytes_at_once needs a higher value.
plugin_opt_messages_per_s 250
plugin_opt_messages_at_once 5000
plugin_opt_statuses_per_s 50
plugin_opt_statuses_at_once 1000
plugin_opt_bytes_per_s 4194304
plugin_opt_bytes_at_once 33554432
plugin_opt_subscriptions 64
plugin_opt_rounds_per_minute 1200
# Most names that the guard has accounts of at a time, of about 200 bytes each.
plugin_opt_clients 20000

# ---- limits
# A retained message goes to each reader that the ACL allows, even if its sender may not write there any more. So the
# aggregator sees, and clears, what was retained on its topics before the guard was there.
check_retain_source false
# At the default of 1000 the broker drops messages that it has acknowledged, when a fleet reports faster than the
# aggregator reads. Never set 0, which is documented as "no limit": several 2.0 versions then queue no message at all.
max_queued_messages 100000
max_queued_bytes 268435456
# Parts are 64 KiB with their headers. The broker tells each client this limit, and disconnects one that sends a larger
# packet. Raise it, and plugin_opt_part_bytes by as much, if you raise [codec] part_bytes.
max_packet_size 67584
# In bytes: set what this machine can spare. Above it the broker refuses messages; without it the kernel may kill the
# broker, and all that is queued would be lost. A database that does not fit keeps the broker from starting: see
# "A broker that is full" in broker/README.md.
memory_limit 1073741824

# ---- memory across restarts
persistence true
# The interval counts changes, not seconds. Each save writes the whole database: a lower number is safer, and wears an
# SD card more. Devices send again what a crash loses: they wait for the aggregator's receipt, not for the broker's.
autosave_on_changes true
autosave_interval 1000
# Sessions of devices that never came back.
persistent_client_expiration 14d
"""

_ACL = """\
# Who may do what in the federation {federation}: mosquitto's acl_file. Whatever is not granted here is denied.
# A client's user name (%u) is its certificate's common name; a device's is its device id.

user {aggregator}
topic readwrite {base}/#

# A device writes its status and the parts of its updates, and reads its own inbox. With MQTT 3.1.1, which hides
# refusals, it reads its own status back, to find out that the broker takes it for another.
pattern write {base}/d/%u/status
pattern write {base}/d/%u/u/+/+
pattern read {base}/d/%u/inbox
pattern read {base}/d/%u/status

# What the aggregator publishes for all. These are patterns because a topic line that follows no user line applies to
# anonymous clients only. mosquitto warns that they contain no %u: that is intended.
pattern read {base}/manifest
pattern read {base}/round
pattern read {base}/model/+/+
"""

_VIEWER = """
user {name}
topic deny {base}/d/{name}/#
topic read {base}/aggregator
topic read {base}/summary
topic read {base}/fleet/+
topic read {base}/d/+/status
"""

_HELPER = """
user {name}
topic deny {base}/d/{name}/#
topic read {base}/helper/{name}/ask/+
topic write {base}/helper/{name}/answer/+
"""

_BATCH = """
# A device of a batch asks to be enrolled: %u is the batch, %c the id of the device's keys.
pattern write {base}/enrol/%u/%c/ask
pattern read {base}/enrol/%u/%c/answer
"""

_BATCH_USER = """
user {name}
topic deny {base}/d/#
topic deny {base}/manifest
topic deny {base}/round
topic deny {base}/model/#
"""

_ENROL_CONF = """\
# The listener at which devices of a batch ask to be enrolled: goes to /etc/mosquitto/conf.d/ as well. They have the
# batch's token for a password, and no certificate yet. Remove the file when no batch is open any more.
listener {port}
cafile {home}/ca.crt
certfile {home}/server.crt
keyfile {home}/server.key
tls_version tlsv1.2
require_certificate false
max_connections {connections}

# Of all listeners, but one that takes names from certificates asks for no password.
password_file {home}/batches
"""
ENROL_CONNECTIONS = 20  # a device asks, and leaves; more than these wait their turn

_REVOKED = """
user {name}
topic deny {base}/#
"""


def mosquitto_conf(federation: str, root: str, *, port: int = 8883, home: str = HOME, guard: str = GUARD) -> str:
    """The text of mosquitto.conf. The broker's machine has the other files in `home`, and the plugin at `guard`."""
    base = Topics(federation, root).base
    return _CONF.format(federation=federation, base=base, port=port, home=home, guard=guard)


def acl(
    federation: str, root: str, *, revoked: Iterable[str] = (), viewers: Iterable[str] = (),
    helpers: Iterable[str] = (), batches: Iterable[str] = (),
) -> str:  # fmt: skip
    """The text of the ACL file. `viewers`, `helpers` and `batches` are whole names, such as `viewer-NAME`."""
    words = {"federation": federation, "base": Topics(federation, root).base}
    revoked = sorted(set(revoked))
    if AGGREGATOR_USER in revoked:
        raise UsageError(f"{AGGREGATOR_USER!r} can't be revoked at the broker: renew the aggregator's certificate")
    text = _ACL.format(aggregator=AGGREGATOR_USER, **words)
    batches = sorted(batches)
    text += _BATCH.format(**words) if batches else ""
    text += "".join(_BATCH_USER.format(name=name, **words) for name in batches)
    for template, names in ((_VIEWER, viewers), (_HELPER, helpers)):
        text += "".join(template.format(name=name, **words) for name in sorted(set(names) - set(revoked)))
    if revoked:
        text += "\n# Revoked: `deny` goes before every other line.\n"
    return text + "".join(_REVOKED.format(name=name, **words) for name in revoked)


def write(
    folder: Path,
    *,
    federation: str,
    root: str,
    revoked: Iterable[str] = (),
    viewers: Iterable[str] = (),
    helpers: Iterable[str] = (),
    port: int = 8883,
    home: str = HOME,
    guard: str = GUARD,
    batches: Mapping[str, str] | None = None,
    enrol_port: int | None = None,
) -> None:
    """Write acl and denied in `folder`, and mosquitto.conf unless it is there. Devices need no entry of their own.

    `batches` has the hashed passwords of those that are open. With `enrol_port`, these and enrol.conf are written too.

    UsageError if a file can't be written.
    """
    revoked = sorted(set(revoked))
    texts = {
        "acl": acl(federation, root, revoked=revoked, viewers=viewers, helpers=helpers, batches=batches or ()),
        "denied": "".join(f"{name}\n" for name in revoked),
    }
    if enrol_port is not None:
        texts["batches"] = "".join(f"{name}:{password}\n" for name, password in sorted((batches or {}).items()))
        if not (folder / "enrol.conf").exists():
            texts["enrol.conf"] = _ENROL_CONF.format(port=enrol_port, home=home, connections=ENROL_CONNECTIONS)
    if not (folder / "mosquitto.conf").exists():
        texts["mosquitto.conf"] = mosquitto_conf(federation, root, port=port, home=home, guard=guard)
    for name, text in texts.items():
        try:
            write_atomically(folder / name, text.encode())
            (folder / name).chmod(0o640)
        except OSError as error:
            raise UsageError(f"{folder / name}: {error.strerror}: check the folder and its permissions") from error
