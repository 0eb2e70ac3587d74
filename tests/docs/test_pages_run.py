"""The pages for operators do what they say: their shell blocks run in order, on a machine of their own.

A page names machines, files and devices; `BEFORE` makes what its reader already has, and `EDITS` plays the editor where
the page says "edit". `AFTER` is what must then be so. What is played instead of run stands in tests/support/played.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pages
import pytest
from conftest import ROOT
from page_machine import NoNamespaces, PageMachine

MODEL = """
mkdir -p /root/work /var/lib/edgefl && cd /root/work
python - <<'END'
import onnx, random
from edgefl.onnx import zoo
onnx.save(zoo.mlp([1, 4, 1]), "start.onnx")
with open("/var/lib/edgefl/data.csv", "w") as file:
    file.write("height,weight\\n")
    for k in range(60):
        file.write(f"{k / 30 - 1},{k / 20 + random.random()}\\n")
END
chmod 644 /var/lib/edgefl/data.csv
"""
# One device alone is its own bound: by chance, its update after a restore would be ten times beyond that
ROUNDS = '\n[rounds]\nmin_reports = 1\ninterval_s = 1.0\ndeadline_s = 20.0\n\n[admission]\ninfluence = "off"\n'


def rounds_of(state: str, count: int) -> str:
    """Wait for so many rounds, or show every log and fail."""
    return f"""{{ set +x; }} 2> /dev/null
for i in $(seq 120); do test "$(cat {state}/history.jsonl 2>/dev/null | wc -l)" -ge {count} && break; sleep 1; done
test "$(cat {state}/history.jsonl | wc -l)" -ge {count} || {{ tail -n 30 /run/played/*.log; exit 1; }}
set -x
"""


FOLDERS = {"": "true", "checkout": 'cd "$CHECKOUT"', "home": "cd"}


class PageRun(NamedTuple):
    """The page's sections from `first` on, but for `without`; what stands before, in and after them."""

    page: str
    first: str
    without: tuple[str, ...]
    before: str
    edits: Mapping[str, str]
    after: str
    deployed: bool = False  # a federation of one device trains already, as docs/security.md leads to


def section(page: str, title: str) -> str:
    """The shell blocks of one section."""
    text = (ROOT / page).read_text(encoding="utf-8")
    start = text.index(f"## {title}\n")
    end = text.find("\n## ", start)
    inside = range(text.count("\n", 0, start), text.count("\n", 0, end) if end > 0 else 10**6)
    return "\n".join(b.code for b in pages.blocks(ROOT / page) if b.language == "sh" and b.line in inside)


def script_of(run: PageRun) -> str:
    """The shell script of a page. Each block is a shell of its own, in the folder that its mark names."""
    path, title, number, begun = ROOT / run.page, "", 0, False
    found = {block.line - 1: block for block in pages.blocks(path)}
    parts = [run.before]
    for at, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("#"):
            title, number = line.lstrip("# "), 0
            begun = begun or title == run.first
        block = found.get(at)
        runs = begun and title not in run.without
        if runs and block and block.language == "sh" and block.mark in FOLDERS:
            number += 1
            parts += [run.edits.get(title if number == 1 else f"{title}, block {number}", "")]
            parts += [f"({FOLDERS[block.mark]}\n{block.code})"]
    return "\n".join([*parts, run.after])


_AGGREGATOR = section("broker/README.md", "Install the aggregator").partition("systemctl")[0]
INSTALLED = f"""
cd "$CHECKOUT"
{_AGGREGATOR.replace("start.onnx", "/root/work/start.onnx")}
useradd --system --home-dir /var/lib/edgefl --shell /usr/sbin/nologin edgefl
install -m 644 device_agent/edgefl-agent.service /etc/systemd/system/
cd /root/work
"""
STATE = "/var/lib/edgefl-aggregator"
TRAINS = "install -o edgefl-aggregator -m 600 keys/aggregator/roster.json /etc/edgefl-aggregator/\n" + rounds_of(
    STATE, 2
)
SECURITY = PageRun(
    "docs/security.md",
    "The broker's machine",
    (),
    before=MODEL + INSTALLED,
    edits={
        "A device": f"""
sed -i 's|^model = .*|model = "/etc/edgefl-aggregator/start.onnx"|' /etc/edgefl-aggregator/aggregator.toml
printf '{ROUNDS.encode("unicode_escape").decode()}' >> /etc/edgefl-aggregator/aggregator.toml
systemctl enable --now edgefl-aggregator
""",
        "Revoke a device": TRAINS,
    },
    after="edgefl keys list keys",
)
LATER = (
    "Revoke a device",
    "Renew before it expires",
    "A new run, and a restored backup",
    "If something is lost or stolen",
)


def deployed() -> str:
    """What docs/security.md leads to: a federation of one device that trains."""
    return script_of(SECURITY._replace(without=LATER, after=TRAINS))


RUNS = [
    SECURITY,
    PageRun(
        "docs/operations.md",
        "Watch",
        (),
        before="",
        edits={
            "Watch, block 2": """
rsync --chown=root:mosquitto --chmod=F640 keys/broker/acl /etc/mosquitto/edgefl/ && systemctl reload mosquitto
""",
            "Change a setting": "echo 'keep_models = 1000' | cat - /etc/edgefl-aggregator/aggregator.toml > new.toml\n"
            "cat new.toml > /etc/edgefl-aggregator/aggregator.toml",
            "Go back to an earlier model": rounds_of(STATE, 14),
            "Remove a device": rounds_of(STATE, 16),
        },
        after="journalctl --unit edgefl-aggregator | tail -n 40; test -s /root/backup/model.onnx",
        deployed=True,
    ),
    PageRun(
        "device_agent/README.md",
        "Install",
        (),
        before="",
        edits={
            "Install": """
systemctl disable --now edgefl-agent
cp -r /etc/edgefl /root/bundle && userdel edgefl && rm -r /opt/edgefl /etc/edgefl && cd "$CHECKOUT"
""",
            "Configure": "cp /root/bundle/* /etc/edgefl/ && chown edgefl: /etc/edgefl/*",
            "What has left the device": rounds_of(STATE, 5),
        },
        after="",
        deployed=True,
    ),
    PageRun(
        "docs/dashboard.md",
        "Turn it on",
        (),
        before="",
        edits={
            "Turn it on, block 2": """
printf '[dashboard]\\nlisten = "127.0.0.1:8090"\\n' >> /etc/edgefl-aggregator/aggregator.toml
systemctl restart edgefl-aggregator
for _ in $(seq 240); do (: < /dev/tcp/127.0.0.1/8090) 2>/dev/null && break; sleep 0.25; done
"""
        },
        after="""
python -c "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8090/metrics').read().decode())" | grep edgefl_
grep -c my-fleet report.html
""",
        deployed=True,
    ),
    PageRun(
        "docs/doctor.md",
        "Doctor: what is wrong, and what to do",
        (),
        before="""
printf 'listener 1883 127.0.0.1\nallow_anonymous true\n' > /root/open.conf
mosquitto -d -c /root/open.conf && sleep 0.5
mkdir /root/look && cd /root/look && cp /etc/edgefl/* . && cp /etc/edgefl-aggregator/* .
""",
        edits={},
        after="",
        deployed=True,
    ),
    PageRun(
        "broker/README.md",
        "Install mosquitto without keys",
        ("A broker that is full", "Prove a model"),
        before=MODEL
        + """
cp -r "$CHECKOUT/broker" /root/work/broker && cd /root/work/broker
edgefl keys init keys --federation my-fleet --broker broker.example.org
cp keys/broker/ca.crt keys/broker/server.crt keys/broker/server.key .
cp keys/aggregator/aggregator.crt keys/aggregator/aggregator.key .
""",
        edits={
            "Install the aggregator": """
cp /root/work/start.onnx /srv/start.onnx
mkdir /root/work/checkout && cp -r "$CHECKOUT/broker" /root/work/checkout && cd /root/work/checkout
cp /srv/start.onnx .
""",
            "Install the aggregator, block 2": """
install -o edgefl-aggregator -m 600 /root/work/broker/ca.crt /root/work/broker/aggregator.crt \\
    /root/work/broker/aggregator.key /etc/edgefl-aggregator/
""",
        },
        after="""
CONNECTED="connected to MQTT broker broker.example.org:8883"
for _ in $(seq 240); do journalctl --unit edgefl-aggregator | grep "$CONNECTED" && break; sleep 0.25; done
systemctl is-active edgefl-aggregator
journalctl --unit edgefl-aggregator | grep "$CONNECTED"
""",
    ),
    PageRun(
        "docs/data.md",
        "A table in five minutes",
        (),
        before="mosquitto -d -p 1883; mkdir /root/work && cd /root/work",
        edits={},
        after='edgefl data stats "ring:ring.db?target=state" --json | grep \'"examples": [1-9][0-9]\'',
    ),
    PageRun("docs/comparison.md", "Pull the plug", (), before="mkdir /root/work && cd /root/work", edits={}, after=""),
    PageRun("docs/sizing.md", "The model", (), before="mkdir /root/work && cd /root/work", edits={}, after=""),
    PageRun(
        "docs/compare.md",
        "A file, and a folder",
        (),
        before="mkdir /root/work && cd /root/work",
        edits={},
        after="""
test -s runs/table.md && test -s runs/runs.csv && test -s runs/against-megabytes.png && test -s runs/tuning.md
grep -q "^| my run " runs/table.md && grep -q "^| other system " runs/table.md
edgefl compare experiment.toml --out runs | head -n 2 | grep Comparison  # nothing is left to run
""",
    ),
    PageRun("docs/slow-links.md", "Try it", (), before="mkdir /root/work && cd /root/work", edits={}, after=""),
]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.page)
def test_a_page_does_what_it_says(run: PageRun, tmp_path: Path) -> None:
    try:
        machine = PageMachine(tmp_path / "scratch", ROOT)
    except NoNamespaces as error:
        if os.environ.get("EDGEFL_REQUIRE_NAMESPACES") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))
    done = machine.run((deployed() if run.deployed else "") + script_of(run), timeout_s=420.0)
    assert done.returncode == 0, done.stdout[-8000:]
    assert "Traceback" not in done.stdout
