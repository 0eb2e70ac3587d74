"""What a newcomer does, done in clean Debian trees: the pages' own commands, one after the other.

    make clean-package      all packages: install, start, upgrade, remove, purge; nothing is left
    make clean-pi           docs/raspberry-pi.md in arm64, emulated
    make clean-start        docs/quickstart.md, from the package to a trained model
    make clean-clone        from `git clone` to a finished demo
    make clean-container    the steps of package/Containerfile

A tree has no systemd that runs: systemctl and journalctl are played (tests/support/played), which run a unit's command
as its user. As root; what is needed besides is said when it is missing.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "package"), str(ROOT / "tests/support"), str(ROOT / "tests")]
import trees  # noqa: E402
import wheels  # noqa: E402
from debs import newest_wheel  # noqa: E402
from own_table import write_table  # noqa: E402
from page_machine import PLAYED  # noqa: E402

BUILD = ROOT / "build/clean"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# Logs, caches and dpkg's own records; bytecode of Debian's Python, which no maintainer script compiled in such a tree.
IGNORED = re.compile(
    r"^(proc|sys|dev|tmp|run|root|srv|var/(cache|log)|var/lib/(dpkg|apt|systemd)|usr/(lib|share)/python3"
    r"|etc/(passwd|group|shadow|gshadow|subuid|subgid)-?$)"
)
MOST_COMMANDS = 12


class CleanTree:
    """A tree that is as unpacked, whatever was done in it before; `sh` runs commands in it as root."""

    def __init__(self, name: str, arch: str, *, packages: list[str], network: bool) -> None:
        trees.needs_root()
        self.name, self.network = name, network
        base = BUILD / f"base-{arch}-{'-'.join(packages) or 'plain'}"
        trees.make("bookworm", arch, base, packages)
        trees.emulate(arch)
        self.path = BUILD / name
        shutil.rmtree(self.path, ignore_errors=True)
        subprocess.run(["cp", "--archive", "--reflink=auto", base, self.path], check=True)
        for tool in ("systemctl", "journalctl"):
            shutil.copy2(PLAYED, self.path / "usr/local/bin" / tool)
        if CERTIFICATES.exists():  # where this machine reaches registries through a proxy of its own
            shutil.copy2(CERTIFICATES, self.path / "etc/ssl/certs/ca-certificates.crt")

    def fetch(self, *packages: str) -> None:
        """Let apt in the tree know what there is, and keep the files of `packages` for a time without a network."""
        self._enter("apt-get -qq update", network=True)
        if packages:
            self._enter(f"apt-get -qq --yes --download-only install {' '.join(packages)}", network=True)

    def sh(self, script: str, timeout_s: float = 1800.0) -> str:
        """What the commands print; the first that fails ends it all, with what was printed so far."""
        return self._enter(script, network=self.network, timeout_s=timeout_s)

    def _enter(self, script: str, *, network: bool, timeout_s: float = 1800.0) -> str:
        spaces = ["--mount", "--pid", "--fork", "--kill-child", *([] if network else ["--net"])]
        begin = (
            f"mount --rbind /dev {self.path}/dev; mount -t sysfs sysfs {self.path}/sys 2> /dev/null || true\n"
            f"mount -t proc proc {self.path}/proc; {'true' if network else 'ip link set lo up'}\n"
            f"exec chroot {self.path} bash -exc 'cd; source /dev/fd/3' 3<&0"
        )
        environment = {
            "PATH": f"/usr/local/bin:{trees.PLAIN['PATH']}",
            "PIP_CERT": str(CERTIFICATES),
            "EDGEFL_TRUST_CLOCK": "1",  # nobody sets the clock of a tree but its host
        }
        done = subprocess.run(
            ["unshare", *spaces, "bash", "-ec", begin], input=script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=timeout_s, env=trees.PLAIN | environment,
        )  # fmt: skip
        (BUILD / f"{self.name}.log").open("a").write(f"{done.stdout}\n")
        if done.returncode:
            sys.exit(f"{done.stdout[-6000:]}\n{self.name}: a command failed with {done.returncode}")
        return done.stdout

    def files(self) -> set[str]:
        found = (str(path.relative_to(self.path)) for path in self.path.rglob("*"))
        return {name for name in found if not IGNORED.match(name)}

    def megabytes(self) -> float:
        return int(trees.output("du", "--summarize", "--bytes", self.path).split()[0]) / 1e6

    def take(self, *paths: Path) -> None:
        """Copy files into root's home folder."""
        for path in paths:
            shutil.copy2(path, self.path / "root")


def debs(arch: str) -> list[Path]:
    found = sorted((ROOT / "dist").glob(f"*+deb12_{arch}.deb"))
    if len(found) < 3:
        sys.exit(f"no packages for {arch} in dist: make deb")
    return found


def check_package(arch: str) -> None:
    """All packages come and go, and leave nothing."""
    tree = CleanTree(f"package-{arch}", arch, packages=["libstdc++6"], network=False)
    before = tree.files()
    accounts = (tree.path / "etc/passwd").read_text()
    agent, aggregator, helper = debs(arch)
    tree.take(agent, aggregator, helper, newer(agent))
    tree.sh(INSTALL)
    tree.sh(START)
    tree.sh(UPGRADE)
    tree.sh(REMOVE)
    left = sorted(name for name in tree.files() - before if not re.match(r"(etc|var/lib)/edgefl", name))
    assert not left, f"left after remove: {left[:20]}"
    tree.sh("apt-get purge --yes edgefl-agent edgefl-aggregator edgefl-helper")
    left = sorted(tree.files() - before)
    assert not left, f"left after purge: {left[:20]}"
    assert (tree.path / "etc/passwd").read_text() == accounts, "a user is left"
    print(f"packages for {arch}: installed, started, upgraded, removed, purged; nothing is left")


def newer(deb: Path) -> Path:
    """The same package with a higher version."""
    folder = BUILD / "newer"
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(["dpkg-deb", "--raw-extract", deb, folder], check=True)
    control = folder / "DEBIAN/control"
    control.write_text(re.sub(r"^Version: .*", r"\g<0>.1", control.read_text(), flags=re.MULTILINE))
    made = BUILD / deb.name.replace("_", "-newer_", 1)
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", folder, made], check=True)
    return made


INSTALL = """
apt-get install --yes --no-install-recommends ./edgefl-agent_*.deb ./edgefl-aggregator_*.deb ./edgefl-helper_*.deb
stat --format='%A %U:%G %n' /etc/edgefl* /etc/edgefl*/* /var/lib/edgefl*
test "$(stat --format=%a:%G /etc/edgefl/agent.toml)" = 640:edgefl
test "$(stat --format=%a:%G /etc/edgefl-aggregator/aggregator.toml)" = 640:edgefl-aggregator
test "$(stat --format=%a:%G /etc/edgefl-helper/helper.toml)" = 640:edgefl-helper
if runuser -u edgefl-aggregator -- cat /etc/edgefl-helper/helper.toml; then exit 1; fi
if runuser -u edgefl -- cat /etc/edgefl-aggregator/aggregator.toml; then exit 1; fi
if runuser -u edgefl-aggregator -- cat /etc/edgefl/agent.toml; then exit 1; fi
edgefl-agent --version
edgefl --version
edgefl-helper --version
/usr/lib/edgefl-helper/bin/python3 -c 'import dp_accounting, nacl, edgefl_broker.helper.daemon'
/usr/lib/edgefl-aggregator/bin/python3 -c 'import numpy, onnxruntime; print(numpy.__version__, numpy.__file__)'
systemd-analyze verify --man=no /lib/systemd/system/edgefl-{agent,aggregator,helper}.service
"""
START = """
printf 'x,y\\n1,0\\n2,1\\n3,1\\n' > /srv/rows.csv
cat > /etc/edgefl/agent.toml <<END
federation = "fleet"
device_id = "pi-01"
state_dir = "/var/lib/edgefl"
[mqtt]
url = "mqtt://127.0.0.1:1"
[data]
source = "csv:/srv/rows.csv?target=y"
END
systemctl start edgefl-agent
sleep 10
systemctl is-active edgefl-agent
test "$(stat --format=%a:%U /var/lib/edgefl/agent.db)" = 600:edgefl
"""
UPGRADE = """
sum=$(sha256sum < /etc/edgefl/agent.toml)
apt-get install --yes ./edgefl-agent-newer_*.deb
dpkg-query --show edgefl-agent
test "$sum" = "$(sha256sum < /etc/edgefl/agent.toml)"
test -e /var/lib/edgefl/agent.db
edgefl-agent --version
"""
REMOVE = """
apt-get remove --yes edgefl-agent edgefl-aggregator edgefl-helper
test -e /etc/edgefl/agent.toml
if test -e /usr/bin/edgefl-agent; then exit 1; fi
"""


def section(page: str, first: str, last: str = "") -> str:
    """The shell commands of a page from one heading to another."""
    text = (ROOT / page).read_text(encoding="utf-8").partition(f"## {first}\n")[2]
    text = text.partition(f"## {last}\n")[0] if last else text
    return "".join(re.findall(r"^```sh(?: home)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


def own_folder(tree: CleanTree) -> None:
    """An ordinary user with a table of their own, who may use sudo."""
    tree.sh("useradd --create-home --shell /bin/bash newcomer")
    tree.sh("echo 'newcomer ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/newcomer")
    write_table(tree.path / "home/newcomer/machines.csv")


def check_start(arch: str, by: str) -> None:
    """docs/quickstart.md as it stands, by an ordinary user. Its packages are installed from the network, the rest runs
    without one. The wheel lies in a folder, since it is not published."""
    tree = CleanTree(f"start-{by}-{arch}", arch, packages=["sudo", "libstdc++6"], network=False)
    tree.fetch("mosquitto", "python3-venv")
    own_folder(tree)
    page = "docs/quickstart.md"
    install, run = (
        section(page, "Install", "Make the federation"),
        section(page, "Make the federation", "See what it learns"),
    )
    told = [line for line in (install + run).splitlines() if line]
    assert len(told) < MOST_COMMANDS, told
    files = debs(arch) if by == "deb" else [newest_wheel("3.11", machine_of(arch))]
    for path in files:
        shutil.copy2(path, tree.path / "home/newcomer")
    began = time.monotonic()
    if by == "deb":
        tree.network = False
        tree.sh(as_newcomer("sudo apt-get install --yes --no-install-recommends mosquitto ./edgefl-*.deb"))
        activate = ""
    else:
        tree.network = True
        tree.sh(as_newcomer(f"export PIP_FIND_LINKS=$HOME\n{install}"))
        activate = ". edgefl-venv/bin/activate\n"
    tree.network = False
    installed_s = time.monotonic() - began
    output = tree.sh(
        as_newcomer(f"{activate}{run}{WAIT}{section(page, 'See what it learns', 'Then: on machines of their own')}")
    )
    seen = output[output.index("+ edgefl status") :]
    print(seen[:3000])
    assert re.search(r"pi-01 .*\n.*pi-02 ", seen), "both devices are in the table"
    took_s = time.monotonic() - began
    print(f"{page} from the {by}: {len(told) + 1} commands, {took_s:.0f} s, of which installing {installed_s:.0f} s")


WAIT = """
{ set +x; } 2> /dev/null
for i in $(seq 240); do test "$(cat state/history.jsonl 2> /dev/null | wc -l)" -ge 6 && break; sleep 1; done
test "$(cat state/history.jsonl | wc -l)" -ge 6 || { tail -n 20 *.log; exit 1; }
test -s state/model.onnx
set -x
"""


def as_newcomer(script: str) -> str:
    user = "setpriv --reuid=newcomer --regid=newcomer --init-groups env HOME=/home/newcomer"
    return f"cd /home/newcomer\n{user} bash -ex <<'NEWCOMER'\n{script}\nNEWCOMER"


def machine_of(arch: str) -> str:
    return next(machine for machine, name in wheels.MACHINES.items() if name == arch)


def check_clone() -> None:
    """README.md: from `git clone` to a finished demo in two commands."""
    tree = CleanTree(
        "clone", "amd64", packages=["git", "gcc", "libc6-dev", "make", "python3-dev", "libstdc++6"], network=True
    )
    subprocess.run(["git", "clone", "--quiet", "--bare", ROOT, tree.path / "srv/edgefl.git"], check=True)
    began = time.monotonic()
    output = tree.sh("git clone /srv/edgefl.git edgefl\nmake -C edgefl demo")
    print(output[-1500:])
    print(f"git clone to a finished demo: 2 commands, {time.monotonic() - began:.0f} s")


def check_pi() -> None:
    """docs/raspberry-pi.md as it stands, in arm64, against a broker and an aggregator in the same tree."""
    tree = CleanTree("pi", "arm64", packages=["libstdc++6"], network=True)
    agent, aggregator, _ = debs("arm64")
    tree.take(agent, aggregator, newest_wheel("3.11", "aarch64"))
    tree.fetch("mosquitto")
    write_table(tree.path / "root/machines.csv")
    page = "docs/raspberry-pi.md"
    tree.sh(section(page, "Install", "Give it keys and data"))
    tree.network = False
    tree.sh(OPERATOR)
    tree.sh(section(page, "Give it keys and data", "Look before you start"))
    output = tree.sh(
        f"{BROKER}{section(page, 'Look before you start', 'Start')}{section(page, 'Start', 'What suits a Pi')}{WAIT}"
    )
    print(output[-3000:])
    tree.sh("apt-get purge --yes edgefl-agent; if test -e /etc/edgefl || test -e /var/lib/edgefl; then exit 1; fi")
    print(f"{page}: every command of it, in arm64")


OPERATOR = """
install -D machines.csv /srv/edgefl/machines.csv
apt-get install --yes --no-install-recommends mosquitto ./edgefl-aggregator_*.deb
edgefl new fleet --data "csv:/srv/edgefl/machines.csv?target=state" --devices pi-01
cp fleet/keys/devices/pi-01.tar .
rm -r /srv/edgefl
"""
BROKER = """
cd fleet
echo "user root" >> keys/broker/mosquitto.conf
mosquitto -c keys/broker/mosquitto.conf > mosquitto.log 2>&1 &
edgefl-aggregator --config aggregator.toml --set rounds.interval_s=2 > aggregator.log 2>&1 &
sleep 30
"""


def check_container() -> None:
    """The steps of package/Containerfile, one by one, in a tree for its base image: no container engine is needed for
    that, and none is tested by it."""
    for target in ("agent", "aggregator", "helper"):
        tree = CleanTree(f"container-{target}", "amd64", packages=[], network=True)
        environment, user, entry = "", "root", []
        for verb, words in steps(ROOT / "package/Containerfile", target):
            if verb == "RUN":
                tree.sh(f"{environment}\n{words}")
            elif verb == "COPY":
                pattern, to = words.split()
                for path in (ROOT / "dist").glob(pattern):
                    shutil.copy2(path, f"{tree.path}{to}")
            elif verb == "ENV":
                environment += f"export {words}\n"
            elif verb == "USER":
                user = words
            elif verb == "ENTRYPOINT":
                entry = json.loads(words)
            elif verb == "CMD":
                assert (tree.path / json.loads(words)[1].lstrip("/")).exists()
        state = f"/var/lib/{user}"
        tree.sh(f"{environment}runuser -u {user} -- {entry[0]} --version\nrunuser -u {user} -- touch {state}/written")
        print(f"image {target}: all steps of its Containerfile, {tree.megabytes():.0f} MB in all")


def steps(path: Path, target: str) -> list[tuple[str, str]]:
    """(Verb, rest) of each line of one target and of the base that it is made from."""
    stages: dict[str, list[tuple[str, str]]] = {}
    for line in path.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        verb, _, rest = line.partition(" ")
        if verb == "FROM":
            base, _, name = rest.partition(" AS ")
            here = stages[name] = list(stages.get(base, []))
        else:
            assert verb in ("RUN", "COPY", "ENV", "USER", "VOLUME", "ENTRYPOINT", "CMD"), line
            here.append((verb, rest))
    return stages[target]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["package", "pi", "start", "clone", "container"])
    parser.add_argument("--arch", default="amd64", choices=["amd64", "arm64"], help="of the packages (default: amd64)")
    parser.add_argument("--by", nargs="+", default=["deb", "wheel"], choices=["deb", "wheel"], help="what is installed")
    options = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    match options.what:
        case "package":
            check_package(options.arch)
        case "start":
            for by in options.by:
                check_start(options.arch, by)
        case "clone":
            check_clone()
        case "pi":
            check_pi()
        case "container":
            check_container()


if __name__ == "__main__":
    main()
