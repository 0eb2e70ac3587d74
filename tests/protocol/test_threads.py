"""Messages may be decoded by several threads at once: a process may run several agents."""

from __future__ import annotations

import subprocess
import sys

from machines import make_manifest

from edgefl.protocol.messages import encode

# In children, as what goes wrong ends the process, and only a type's first use can go wrong.
CHILDREN = """
import os, random, sys, threading, time
from edgefl.protocol.manifest import Manifest
from edgefl.protocol.messages import decode
raw = sys.stdin.buffer.read()

def child():
    sys.setswitchinterval(1e-5)
    together = threading.Barrier(3)
    def work(number):
        together.wait()
        time.sleep(number * random.uniform(0, 0.0005))
        decode(Manifest, raw, 10**6)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    os._exit(0)

died = 0
for _ in range(60):
    pid = os.fork()
    if not pid:
        child()
    died += os.waitpid(pid, 0)[1] != 0
print(died)
"""


def test_the_first_messages_of_two_agents_in_one_process_may_come_at_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILDREN], input=encode(make_manifest()), capture_output=True, timeout=600
    )
    assert done.stdout.strip() == b"0", done.stderr.decode()
