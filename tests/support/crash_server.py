"""Aggregator, agent and helper in children of one process that has imported all, to be run many times under strace.

    stdin    "aggregator FOLDER", "agent FOLDER" or "helper FOLDER"
    stdout   the child's process id; then, once it has been sent SIGCONT and has ended, its wait status

A child works through three rounds with a stand-in for its MQTT link, and notes in FOLDER/told, by a memory map and so
without a system call, what it has told the network.
"""

from __future__ import annotations

import logging
import mmap
import os
import signal
import struct
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from crash_helper import SETS, AskedHelper
from edgefl_agent.agent import Agent
from edgefl_agent.config import AgentConfig
from edgefl_broker.aggregator import Aggregator
from edgefl_broker.progress import Silent
from machines import PARAMS, P, make_manifest, make_round, make_update, model_parts, receipt, received
from stand_in import Link, turn

from edgefl.device.events import Trained, TrainJob
from edgefl.hosting import daemon, link_host
from edgefl.hosting.config import AggregatorConfig
from edgefl.hosting.log_lines import log_to_stderr
from edgefl.machine import Connected, Received
from edgefl.privacy import accountant
from edgefl.protocol.envelope import Kind
from edgefl.protocol.inbox import Receipt
from edgefl.protocol.messages import RETAINED_LIMIT, decode
from edgefl.protocol.parts import Splitter
from edgefl.protocol.round import Round
from edgefl.protocol.topics import Topics
from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings import files

ROUNDS = 3
LONGEST_S = 20
MANIFEST = make_manifest(error_feedback=True)
TOLD = struct.Struct("<III")  # aggregator: round, version, round of a late update that has its receipt;
# agent: round reported, round heard of, attempt counted; helper: round answered, CRC of the answer, second sets opened


class Told:
    """The numbers in FOLDER/told, which must be there: TOLD.size zeros at first."""

    def __init__(self, folder: Path) -> None:
        with open(folder / "told", "r+b") as file:
            self._map = mmap.mmap(file.fileno(), TOLD.size)

    def __getitem__(self, index: int) -> int:
        return TOLD.unpack_from(self._map)[index]

    def __setitem__(self, index: int, value: int) -> None:
        struct.pack_into("<I", self._map, 4 * index, value)


def read_told(folder: Path) -> tuple[int, int, int]:
    return TOLD.unpack((folder / "told").read_bytes())


def run_aggregator(folder: Path) -> None:
    """Three committed rounds of two devices; another one is a round late."""
    told = Told(folder)
    settings = files.load(str(folder / "aggregator.toml"), AggregatorConfig)
    topics = Topics(settings.federation)
    claims: list[bytes] = []

    def tell(topic: str, payload: bytes) -> None:
        if topic == topics.aggregator:
            claims.append(payload)
        if topic == topics.round:
            message = decode(Round, payload, RETAINED_LIMIT)
            told[0], told[1] = message.round, message.version
        if topic == topics.inbox("c"):
            told[2] = decode(Receipt, payload).round

    aggregator = Aggregator(settings, Silent())
    aggregator.link = Link(tell)  # type: ignore[assignment]
    machine, do = aggregator.machine, turn(aggregator)
    do(Connected())
    while claims:  # come back, as they do from a broker
        do(Received(topics.aggregator, claims.pop(0)))
    for device in "abc":
        do(received(topics.status(device), b'{"state":"ready","boot":1}'))
    while not aggregator.stopping:
        assert machine.phase == "open"
        for device, weight, number in reports(machine.round):
            delta = np.full(len(machine.params), weight / number, np.float32)
            blob = UpdateHeader(weight, 1, 0.5, 1, 1).to_bytes() + delta.tobytes()
            splitter = Splitter(
                blob, 4096, kind=Kind.UPDATE, codec=1, federation=machine.announcer.hash, round=number,
                version=number - 1,
            )  # fmt: skip
            for part in range(splitter.parts):
                do(Received(topics.update(device, number, part), splitter.part(part)))
    aggregator._store.close()


def reports(round: int) -> list[tuple[str, int, int]]:
    """(device, num_examples, round that it is of) of each update that comes in a round; c's is late, and the first."""
    return [*([("c", 4, round - 1)] if round > 1 else []), ("a", 1, round), ("b", 3, round)]


def update_of(round: int) -> tuple[bytes, bytes]:
    """Blob and residual of the agent's update in a round."""
    return make_update(np.float32(round)), np.full(P, round / 8, np.float32).tobytes()


def run_agent(folder: Path) -> None:
    """Three rounds in which the device is counted."""
    told = Told(folder)
    agent = Agent(files.load(str(folder / "agent.toml"), AgentConfig))
    topics = agent.machine.topics

    def tell(topic: str, payload: bytes) -> None:
        if "/u/" in topic:
            told[0] = topics.parse_update(topic).round

    def train(job: TrainJob) -> None:
        blob, left = update_of(job.round.round)
        agent.post(Trained(job, blob, {"residual": left}))

    link, do = Link(tell), turn(agent)
    agent.link, agent._worker.start = link, train  # type: ignore[assignment,method-assign]
    do(Connected(boot=agent.boot))
    do(received(topics.manifest, MANIFEST))
    for number in range(1, ROUNDS + 1):
        model = {p.topic: p for p in model_parts(number - 1, params_of(number))}
        told[1] = number
        do(received(topics.round, make_round(number, number - 1, params=params_of(number), manifest=MANIFEST)))
        while link.wanted:
            topic = link.wanted.pop(0)
            if topic in model:
                do(model[topic])
        while not agent._events.empty():
            do(agent._events.get())
        do(receipt(round=number))
        told[2] = number
    agent._worker.close()
    agent._store.close()


def params_of(round: int) -> np.ndarray:
    return PARAMS + np.float32(round)


def run_helper(folder: Path) -> None:
    """Three rounds in which the helper is asked for a set, and then for another one."""
    told = Told(folder)
    logging.getLogger("edgefl.helper").setLevel("ERROR")  # no line of its log is a write that may fail
    helper = AskedHelper(folder)
    for number in range(1, ROUNDS + 1):
        for which in range(len(SETS)):
            raw = helper.ask(number, which)
            if helper.read(raw, number).reason:
                continue
            if which:
                told[2] = number
            told[1] = crc32(raw)
            told[0] = number
    helper.close()


RUNS: dict[str, Callable[[Path], None]] = {"aggregator": run_aggregator, "agent": run_agent, "helper": run_helper}


def child(what: str, folder: Path) -> Any:
    """Wait to be traced, run, and end as the daemon would."""
    error = os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(error, 2)
    os.kill(os.getpid(), signal.SIGSTOP)
    signal.alarm(LONGEST_S)
    code = 3
    try:
        code = daemon.exit_code(lambda: RUNS[what](folder), debug=False)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    link_host.WINDOW = 10**9  # the stand-in answers nothing
    log_to_stderr("warning")
    accountant.load()  # two seconds, once
    for line in sys.stdin:
        what, _, folder = line.strip().partition(" ")
        pid = os.fork()
        if pid == 0:
            child(what, Path(folder))
        print(pid, flush=True)
        print(os.waitpid(pid, 0)[1], flush=True)


if __name__ == "__main__":
    main()
