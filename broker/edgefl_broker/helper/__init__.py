"""edgefl-helper: the second party of masked rounds, on a machine that the aggregator's operator does not run.

daemon    the state machine of edgefl/helper on an MQTT link, with its disk, keys and a thread for what takes long
config    helper.toml
keys      the helper's keys and the roster, from the folder of `[keys] dir`
store     what must be on disk before an answer leaves
check     `edgefl-helper --check`
"""

from __future__ import annotations
