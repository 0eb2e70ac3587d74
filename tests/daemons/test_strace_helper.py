"""A helper under strace: killed or refused by the disk at each system call by which it saves; what is on disk before an
answer leaves; and which files and connections it opens.

A sample runs with every test; EDGEFL_STRACE=all takes each call in turn: `make soak-strace`.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import crash_helper
import pytest
from crash_helper import LEAVES, ROUNDS, AskedHelper
from crash_server import TOLD, read_told
from crashes import EVERY, FAULTS, Crashes, at_every_call, require_strace
from edgefl_broker.helper.store import HelperStore

CALL = re.compile(r"^(\d+) +(?:<\.\.\. )?(\w+)(?: resumed>|\()(.*)$")
PATH = re.compile(r"<(/[^>]*)>|\"([^\"]*)\"")
SAMPLE = 1 if EVERY else 29  # it makes many calls
OPENED = "openat,socket,connect"
WRITES = "write,pwrite64,writev,pwritev,pwritev2,ftruncate,fallocate,fsync,fdatasync"
MOVES = "rename,renameat,renameat2,unlink,unlinkat,access,faccessat,faccessat2"


def prepare(folder: Path) -> None:
    (folder / "told").write_bytes(bytes(TOLD.size))
    crash_helper.prepare(folder)


@pytest.fixture(scope="module")
def crashes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crashes]:
    pytest.importorskip("dp_accounting")
    crashes = Crashes(tmp_path_factory.mktemp("crashes"), prepare)
    yield crashes
    crashes.close()


def check_helper(folder: Path, code: int) -> int:
    """What left is durable, and has the same bytes when it is asked for again. No second set of a round is opened by
    the process that died, nor by the next one. Returns the newest round that is open."""
    answered, digest, second = read_told(folder)
    assert not second, f"I34: two sets of round {second}"
    store = HelperStore(folder / "state")
    newest = store.state.round
    store.close()
    assert answered <= newest <= answered + 1, "I34: answered, and not durable"
    assert code != 0 or answered == ROUNDS
    helper = AskedHelper(folder)
    for number in {answered, newest} - {0}:
        assert helper.read(helper.ask(number, 1), number).reason.startswith("second: ")
        raw = helper.ask(number, 0)
        assert not helper.read(raw, number).reason
        assert number != answered or crc32(raw) == digest, "I34: another answer, or other noise"
    helper.close()
    return newest


@pytest.mark.parametrize("fault", FAULTS)
def test_i34_at_every_system_call_of_saving(crashes: Crashes, fault: str) -> None:
    at_every_call(crashes, "helper", fault, check_helper, ROUNDS, sample=SAMPLE)


def calls(trace: str) -> Iterator[tuple[str, str, bool]]:
    """(name, arguments, whether it has ended) of each call that did not fail, in order; one that another thread
    interrupts comes twice, with the same arguments."""
    begun: dict[tuple[str, str], str] = {}
    for line in trace.splitlines():
        if not (found := CALL.match(line)):
            continue
        thread, name, text = found.groups()
        text = begun.pop((thread, name), "") + text
        if text.endswith("<unfinished ...>"):
            begun[thread, name] = text
            yield name, text, False
        elif " = -1 " not in text or "access" in name or "EINPROGRESS" in text:
            yield name, text, True


def test_i34_all_that_was_written_is_synced_before_an_answer_leaves(crashes: Crashes) -> None:
    folder, code, trace = crashes.traced("helper", ["-y", "-s", "200", "-e", f"trace={WRITES},{MOVES}"])
    assert code == 0
    state, dirty, leaves, synced = str(folder / "state"), set[str](), 0, 0
    for name, text, ended in calls(trace):
        paths = [one or other for one, other in PATH.findall(text)]
        if "sync" in name:
            if ended and paths[0].startswith(state):
                dirty.discard(paths[0])
                synced += 1
        elif LEAVES in paths:
            assert not dirty, f"an answer leaves before these are synced: {dirty}"
            leaves += 1
        elif name.startswith("unlink"):
            dirty.discard(paths[-1])
        elif name.startswith("rename"):
            old, new = paths[-2:]
            assert old not in dirty, "a file is put in place before it is synced"
            dirty.add(str(Path(new).parent))
        elif paths and paths[0].startswith(state) and not paths[0].endswith("-shm"):  # which SQLite makes anew
            dirty.add(paths[0])
    assert leaves == 2 * ROUNDS and synced >= 2 * ROUNDS


def test_a_helper_opens_its_keys_and_its_state_and_writes_nothing_else(crashes: Crashes) -> None:
    folder, code, trace = crashes.traced("helper", ["-e", f"trace={OPENED}"])
    assert code == 0
    opened = [(PATH.findall(text)[0][1], text) for name, text, _ in calls(trace) if name == "openat"]
    changed = {path for path, text in opened if re.search("O_WRONLY|O_RDWR|O_CREAT", text)}
    own = {path for path, _ in opened if path.startswith(str(folder))}
    changed.discard(f"{folder}/told")  # this test's
    assert own and all(path.startswith(f"{folder}/state/") for path in changed), changed
    assert {Path(path).name for path in own if path.startswith(f"{folder}/keys/")} >= {"box.key", "roster.json"}
    libraries = (sys.prefix, sys.base_prefix, *sys.path, "/usr/lib", "/lib", "/proc/self/", "/sys/devices/system/cpu")
    others = {path for path, _ in opened if not path.startswith((str(folder), *filter(None, libraries)))}
    assert others <= {"/etc/localtime", "/dev/urandom", "/etc/ssl/openssl.cnf"}, others
    assert not [text for name, text, _ in calls(trace) if name in ("socket", "connect")]


def test_a_helper_connects_to_its_broker_and_nowhere_else(tmp_path: Path) -> None:
    strace = require_strace()
    crash_helper.prepare(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        text = (tmp_path / "helper.toml").read_text().replace("mqtt://127.0.0.1", f"mqtt://127.0.0.1:{port}")
        (tmp_path / "helper.toml").write_text(text)
        trace = tmp_path / "trace"
        helper = [sys.executable, "-m", "edgefl_broker.helper", "--config", str(tmp_path / "helper.toml")]
        words = [strace, "-D", "-f", "-o", str(trace), "-e", "trace=connect,sendto", *helper]
        process = subprocess.Popen(words, stderr=subprocess.DEVNULL)  # the helper itself, beside its tracer
        try:
            server.settimeout(60.0)
            for _ in range(2):  # it comes again
                server.accept()[0].close()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30.0)
        until = time.monotonic() + 10.0
        while not re.search(rf"^{process.pid} +\+\+\+ exited", trace.read_text(), re.MULTILINE):  # it pads numbers
            assert time.monotonic() < until
            time.sleep(0.01)
    connected = [text for name, text, ended in calls(trace.read_text()) if name == "connect"]
    assert len(connected) >= 2
    assert all(f"sin_port=htons({port})" in text and "127.0.0.1" in text for text in connected), connected
