"""Orders: what an operator's command asks of the aggregator, as files in the aggregator's state folder.

    STATE_DIR/orders/         0700, of the aggregator's user
        ID.order              one order, JSON, 0600, renamed into place; ID begins with the time
        ID.answer             what became of it

A command writes an order, waits a few seconds for the answer, and prints it. The aggregator looks once a second,
carries an order out, writes the answer and then removes the order. An order that a crash interrupts is carried out
after the next start: every order can be carried out twice without harm.

Only the aggregator's own user and root may give orders. No link is followed, and number and size are bounded.
"""

from __future__ import annotations

import os
import pwd
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Annotated

import msgspec

from ..atomic import PARTIAL
from ..errors import StoreError, UsageError
from ..private_files import OTHERS

FOLDER = "orders"
MOST = 64  # orders that may wait
LONGEST = 4096  # bytes of an order or an answer
ANSWERS_S = 3600.0  # for so long an answer that nobody has read stays
WAIT_S = 5.0  # for the answer
LOOK_S = 0.1
ORDER, ANSWER = ".order", ".answer"
_NAME = re.compile(r"[0-9]{20}-[0-9a-f]{8}")
_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Release(msgspec.Struct, frozen=True, tag_field="order", tag="release"):
    """End the quarantine of a device."""

    device: str


class Pause(msgspec.Struct, frozen=True, tag_field="order", tag="pause"):
    """Ask a device no more, until it is resumed."""

    device: str
    why: Annotated[str, msgspec.Meta(max_length=160)] = ""


class Resume(msgspec.Struct, frozen=True, tag_field="order", tag="resume"):
    """Ask a paused device again."""

    device: str


class Forget(msgspec.Struct, frozen=True, tag_field="order", tag="forget"):
    """Remove what is known of a device that is gone."""

    device: str


class Rollback(msgspec.Struct, frozen=True, tag_field="order", tag="rollback"):
    """Commit the model of an earlier version again, as a new version."""

    version: int


class Name(msgspec.Struct, frozen=True, tag_field="order", tag="tag"):
    """Give a version a name, which keeps it from being dropped; without a version, take the name away."""

    name: str
    version: int | None = None


class AskProfile(msgspec.Struct, frozen=True, tag_field="order", tag="profile"):
    """Have the next round make a profile of the devices' columns."""


Order = Release | Pause | Resume | Forget | Rollback | Name | AskProfile


class Answer(msgspec.Struct, frozen=True):
    """What became of an order, in words for the operator."""

    done: bool
    text: str


def give(state_dir: Path, order: Order, wait_s: float = WAIT_S) -> Answer | None:
    """Leave `order` for the aggregator that has its state in `state_dir`. Returns its answer; None if there is none
    within `wait_s`: the order then waits in its file. UsageError if orders can't be left there."""
    name = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
    try:
        with _folder(state_dir) as folder:
            if sum(entry.name.endswith(ORDER) for entry in os.scandir(folder)) >= MOST:
                where = state_dir / FOLDER
                raise UsageError(f"{MOST} orders wait in {where} already: start the aggregator, or delete them")
            _write(folder, name + ORDER, msgspec.json.encode(order))
            return _wait(folder, name, wait_s)
    except OSError as error:
        owner = _owner_of(state_dir)
        who = f"run this as {owner} or as root" if owner else "give the aggregator's state_dir with --state-dir"
        raise UsageError(f"can't leave an order in {state_dir}: {error.strerror}: {who}") from None


def _wait(folder: int, name: str, wait_s: float) -> Answer | None:
    until = time.monotonic() + wait_s
    while True:
        with suppress(FileNotFoundError):
            answer = msgspec.json.decode(_read(folder, name + ANSWER), type=Answer)
            os.unlink(name + ANSWER, dir_fd=folder)
            return answer
        if time.monotonic() >= until:
            return None
        time.sleep(LOOK_S)


class Orders:
    """The aggregator's side. An order is handed out once by each process."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._under_way: set[str] = set()

    def look(self) -> list[tuple[str, Order | str]]:
        """Orders that have come since the last look, oldest first, each with its id; a text instead of an order that
        can't be read says why. OSError if the folder can't be used."""
        with _folder(self._state_dir) as folder:
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in islice(entries, 4 * MOST))
            self._tidy(folder, names)
            found = [name.removesuffix(ORDER) for name in names if name.endswith(ORDER)]
            new = [name for name in found if name not in self._under_way and _NAME.fullmatch(name)][:MOST]
            self._under_way.update(new)
            return [(name, self._order(folder, name)) for name in new]

    def answer(self, name: str, answer: Answer) -> None:
        """The order has been carried out, or refused. OSError."""
        with _folder(self._state_dir) as folder:
            text = answer.text[: LONGEST // 8]  # JSON may take six bytes for a character
            _write(folder, name + ANSWER, msgspec.json.encode(Answer(answer.done, text)))
            with suppress(FileNotFoundError):
                os.unlink(name + ORDER, dir_fd=folder)
        self._under_way.discard(name)

    def _order(self, folder: int, name: str) -> Order | str:
        try:
            order: Order = msgspec.json.decode(_read(folder, name + ORDER), type=Order)
            return order
        except (OSError, StoreError) as error:
            return f"the order can't be read: {error}"
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return f"the order is not one that this version knows: {str(error)[:200]}"

    def _tidy(self, folder: int, names: list[str]) -> None:
        """Remove what nobody will read, and what is no order."""
        now = time.time()
        for name in names:
            stem, _, end = name.rpartition(".")
            if f".{end}" == ORDER and _NAME.fullmatch(stem):
                continue
            with suppress(OSError):
                old = abs(now - os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime) > ANSWERS_S
                if old or f".{end}" == ORDER:
                    os.unlink(name, dir_fd=folder)


@contextmanager
def _folder(state_dir: Path) -> Iterator[int]:
    """The folder of orders, opened; made where it is missing. OSError; StoreError if others could write there."""
    path = state_dir / FOLDER
    owner = os.stat(state_dir).st_uid
    try:
        os.mkdir(path, 0o700)
        made = True
    except FileExistsError:
        made = False
    number = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _FLAGS)
    try:
        if made:
            _hand_over(number, owner)
        status = os.fstat(number)
        if status.st_uid not in (owner, os.geteuid()) or stat.S_IMODE(status.st_mode) & OTHERS:
            raise StoreError(f"{path} is open to others: give it to the aggregator's user, mode 0700")
        yield number
    finally:
        os.close(number)


def _write(folder: int, name: str, data: bytes) -> None:
    """Put a file of mode 0600 into `folder`, whole and durable, that belongs to the folder's owner."""
    partial = f".{name}.{os.getpid()}{PARTIAL}"
    number = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600, dir_fd=folder)
    with open(number, "wb") as file:
        file.write(data)
        file.flush()
        _hand_over(number, os.fstat(folder).st_uid)
        os.fsync(number)
    os.rename(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)


def _hand_over(number: int, owner: int) -> None:
    """What root makes belongs to the aggregator's user."""
    if os.geteuid() == 0 == os.fstat(number).st_uid != owner:
        os.fchown(number, owner, -1)


def _read(folder: int, name: str) -> bytes:
    """The bytes of a small file of the folder's owner or root. OSError, StoreError."""
    number = os.open(name, os.O_RDONLY | _FLAGS, dir_fd=folder)
    with open(number, "rb") as file:
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.fstat(folder).st_uid):
            raise StoreError("it is no file of the aggregator's user")
        data = file.read(LONGEST + 1)
    if len(data) > LONGEST:
        raise StoreError(f"it is longer than {LONGEST} bytes")
    return data


def _owner_of(state_dir: Path) -> str:
    """The name of the folder's user; "" if there is no such folder, or no such name."""
    try:
        return pwd.getpwuid(os.stat(state_dir).st_uid).pw_name
    except (OSError, KeyError):
        return ""
