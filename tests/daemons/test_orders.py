"""Orders: what a command leaves in the state folder, what the aggregator makes of it, and who may not give orders."""

from __future__ import annotations

import os
import threading
import time
from contextlib import closing

import msgspec
import numpy as np
import pytest
from edgefl_broker.desk import Desk
from edgefl_broker.store import AggregatorStore
from edgefl_broker.tags import TagTable

from edgefl.errors import StoreError, UsageError
from edgefl.history_record import RoundRecord
from edgefl.hosting import orders
from edgefl.hosting.orders import Answer, Forget, Orders, Release, Rollback, give
from edgefl.strategies.checkpoint import pack


def place(folder, name, data, mode=0o600):
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / name
    path.write_bytes(data)
    path.chmod(mode)
    return path


def name_of(number):
    return f"{number:020d}-00000000"


def test_an_order_is_answered_and_nothing_is_left(tmp_path):
    desk, seen = Orders(tmp_path), []

    def aggregator():
        while not seen:
            for name, order in desk.look():
                seen.append(order)
                desk.answer(name, Answer(True, "version 3 is version 1 again"))
            time.sleep(0.02)

    thread = threading.Thread(target=aggregator)
    thread.start()
    answer = give(tmp_path, Rollback(1), wait_s=10)
    thread.join()
    assert (seen, answer) == ([Rollback(1)], Answer(True, "version 3 is version 1 again"))
    assert list((tmp_path / "orders").iterdir()) == []


def test_an_order_waits_for_an_aggregator_that_does_not_run(tmp_path):
    assert give(tmp_path, Release("pi-03"), wait_s=0) is None
    (_, order), *rest = Orders(tmp_path).look()
    assert (order, rest) == (Release("pi-03"), [])


def test_modes_are_the_owners_alone(tmp_path):
    give(tmp_path, Rollback(1), wait_s=0)
    folder = tmp_path / "orders"
    (file,) = folder.iterdir()
    assert (folder.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)


def test_orders_keep_their_turn_and_are_handed_out_once(tmp_path):
    for version in range(5):
        give(tmp_path, Rollback(version), wait_s=0)
    desk = Orders(tmp_path)
    assert [order.version for _, order in desk.look()] == [0, 1, 2, 3, 4]
    assert desk.look() == []
    assert len(Orders(tmp_path).look()) == 5, "a process that starts again carries out what has no answer"


def test_an_answer_that_nobody_reads_goes_after_an_hour(tmp_path):
    give(tmp_path, Rollback(1), wait_s=0)
    desk = Orders(tmp_path)
    ((name, _),) = desk.look()
    desk.answer(name, Answer(True, "done"))
    desk.look()
    (file,) = (tmp_path / "orders").iterdir()
    assert file.suffix == ".answer"
    old = time.time() - orders.ANSWERS_S - 1
    os.utime(file, (old, old))
    desk.look()
    assert list((tmp_path / "orders").iterdir()) == []


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b'{"order":"format","disk":"/"}', b'{"order":"rollback","version":"x"}', b"[" * 4000, b"x" * 5000],
    ids=["empty", "torn", "unknown", "wrong type", "deep", "long"],
)
def test_what_is_no_order_is_answered_and_removed(tmp_path, data):
    place(tmp_path / "orders", name_of(1) + ".order", data)
    desk = Orders(tmp_path)
    ((name, text),) = desk.look()
    assert isinstance(text, str) and text.startswith("the order")
    desk.answer(name, Answer(False, text))
    assert not (tmp_path / "orders" / (name_of(1) + ".order")).exists()


def test_no_link_is_followed(tmp_path):
    secret = place(tmp_path / "elsewhere", "secret", msgspec.json.encode(Rollback(1)))
    folder = tmp_path / "orders"
    folder.mkdir(mode=0o700)
    (folder / (name_of(1) + ".order")).symlink_to(secret)
    ((_, text),) = Orders(tmp_path).look()
    assert isinstance(text, str)
    folder.rename(tmp_path / "aside")
    folder.symlink_to(tmp_path / "aside")
    with pytest.raises(OSError):
        Orders(tmp_path).look()
    with pytest.raises(UsageError, match="can't leave an order"):
        give(tmp_path, Rollback(1), wait_s=0)


def test_a_pipe_does_not_stop_the_aggregator(tmp_path):
    (tmp_path / "orders").mkdir(mode=0o700)
    os.mkfifo(tmp_path / "orders" / (name_of(1) + ".order"))
    ((_, text),) = Orders(tmp_path).look()
    assert "no file of the aggregator's user" in text


def test_a_folder_that_others_may_write_to_is_refused(tmp_path):
    (tmp_path / "orders").mkdir(mode=0o700)
    (tmp_path / "orders").chmod(0o770)
    with pytest.raises(StoreError, match="open to others"):
        Orders(tmp_path).look()
    with pytest.raises(StoreError, match="open to others"):
        give(tmp_path, Rollback(1), wait_s=0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
def test_a_file_of_another_user_is_no_order(tmp_path):
    path = place(tmp_path / "orders", name_of(1) + ".order", msgspec.json.encode(Rollback(1)))
    os.chown(tmp_path, 1, -1)
    os.chown(tmp_path / "orders", 1, -1)
    os.chown(path, 2, -1)
    ((_, text),) = Orders(tmp_path).look()
    assert "no file of the aggregator's user" in text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make folders of another user")
def test_a_folder_of_another_user_is_refused(tmp_path):
    """Somebody who may write to the state folder has put it there."""
    path = place(tmp_path / "orders", name_of(1) + ".order", msgspec.json.encode(Rollback(1)))
    os.chown(tmp_path, 1, -1)
    for file in (path, path.parent):
        os.chown(file, 2, -1)
    with pytest.raises(StoreError, match="give it to the aggregator's user"):
        Orders(tmp_path).look()


def test_a_model_that_another_strategy_made_comes_back_without_its_state(tmp_path):
    params, fed = np.zeros(4, np.float32), []
    with closing(AggregatorStore(tmp_path)) as store:
        store.resume("plan", params)
        made = pack("fedavgm", {"momentum": params})
        store.commit(RoundRecord(1, "committed", 1, 1, [], 1, None, 0, 0, 0.0), params + 1, (), made)
        for number, strategy in enumerate(("fedavgm", "fedavg")):
            place(tmp_path / "orders", name_of(number) + ".order", msgspec.json.encode(Rollback(1)))
            tags = TagTable(store, tested=True, most_bytes=1e6)
            Desk(tmp_path, store, tags, strategy, fed.append).look()
            (tmp_path / "orders" / f"{name_of(number)}.order").unlink()
    assert [(event.version, list(event.state)) for event in fed] == [(1, ["momentum"]), (1, [])]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_orders_belongs_to_the_aggregators_user(tmp_path):
    os.chown(tmp_path, 1, -1)
    give(tmp_path, Rollback(1), wait_s=0)
    (file,) = (tmp_path / "orders").iterdir()
    assert (file.parent.stat().st_uid, file.stat().st_uid) == (1, 1)


def test_orders_are_bounded_in_number(tmp_path):
    folder = tmp_path / "orders"
    for number in range(orders.MOST):
        place(folder, name_of(number) + ".order", msgspec.json.encode(Rollback(number)))
    with pytest.raises(UsageError, match="64 orders wait"):
        give(tmp_path, Rollback(1), wait_s=0)
    for number in range(orders.MOST, 6 * orders.MOST):
        place(folder, name_of(number) + ".order", msgspec.json.encode(Rollback(number)))
    assert len(Orders(tmp_path).look()) == orders.MOST


def test_an_order_for_a_folder_that_is_missing_says_what_to_do(tmp_path):
    with pytest.raises(UsageError, match="--state-dir"):
        give(tmp_path / "nowhere", Rollback(1), wait_s=0)


@pytest.mark.parametrize("version", [-1, 7, 2**63, 10**30])
def test_a_version_that_can_not_be_is_answered_and_ends_nothing(tmp_path, version):
    with closing(AggregatorStore(tmp_path)) as store:
        store.resume("plan", np.zeros(3, np.float32))
        desk = Desk(tmp_path, store, TagTable(store, tested=True, most_bytes=1e6), "fedavg", pytest.fail)
        assert give(tmp_path, Rollback(version), wait_s=0) is None
        desk.look()
        (answer,) = (tmp_path / "orders").glob("*.answer")
        assert f"version {version} is not kept" in answer.read_text()
        assert not list((tmp_path / "orders").glob("*.order"))


def test_orders_behind_a_removal_wait_for_the_next_look(tmp_path):
    fed = []
    with closing(AggregatorStore(tmp_path)) as store:
        store.resume("plan", np.zeros(3, np.float32))
        desk = Desk(tmp_path, store, TagTable(store, tested=True, most_bytes=1e6), "fedavg", fed.append)
        for device in ("pi-1", "pi-2"):
            give(tmp_path, Forget(device), wait_s=0)
        give(tmp_path, Release("pi-3"), wait_s=0)
        for device in ("pi-1", "pi-2", "pi-3"):
            desk.look()
            assert fed[-1].device == device
    assert len(fed) == 3


def test_i09_a_disk_that_takes_no_order_is_no_order_that_can_not_be_read(tmp_path):
    def feed(event):
        raise StoreError("the disk is full")

    with closing(AggregatorStore(tmp_path)) as store:
        store.resume("plan", np.zeros(3, np.float32))
        desk = Desk(tmp_path, store, TagTable(store, tested=True, most_bytes=1e6), "fedavg", feed)
        give(tmp_path, Release("pi-1"), wait_s=0)
        with pytest.raises(StoreError, match="disk is full"):
            desk.look()
