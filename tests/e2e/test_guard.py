"""The guard on a real mosquitto with the generated files: what a client with a valid certificate can't do to others."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from brokers import eventually, resident_kb
from guarded import GuardedMosquitto, RawClient

ACCEPTED = (0, 16)  # PUBACK: success, no matching subscribers
DENIED = 135  # not authorized


@pytest.fixture
def broker() -> Iterator[GuardedMosquitto]:
    with GuardedMosquitto() as broker:
        yield broker


def log_lines(broker: GuardedMosquitto, name: str) -> list[str]:
    return re.findall(rf"guard: {name}: .*", broker.log)


def test_a_flood_of_retained_messages_leaves_nothing(broker):
    """134 MB in 10 s took the broker down without the guard, and its database kept it from starting again."""
    with broker.client("aggregator") as aggregator, broker.client("pi-1") as flood:
        before = resident_kb(broker.pid)
        for n in range(2000):
            flood.send(f"{broker.base}/d/pi-1/u/{n}/0", bytes(65536), retain=True)
        assert flood.publish(f"{broker.base}/d/pi-1/status", b"alive", retain=True) in ACCEPTED
        assert resident_kb(broker.pid) - before < 2000, "of 131 MB"
        aggregator.subscribe(f"{broker.base}/#")
        assert aggregator.wait_for(f"{broker.base}/d/pi-1/status", b"alive")
        assert len(aggregator.messages) == 1
    broker.restart()
    assert len(log_lines(broker, "pi-1")) == 1
    broker.client("pi-1").close()


def test_a_thousand_messages_a_second_become_its_budget(broker):
    """Who goes beyond it is denied, then disconnected; it may come back, and has what is left."""
    broker.restart_with({"plugin_opt_messages_per_s": "50", "plugin_opt_messages_at_once": "100"})
    with broker.client("aggregator") as aggregator, broker.client("pi-1") as loud, broker.client("pi-2") as calm:
        aggregator.subscribe(f"{broker.base}/d/+/u/+/+")
        for part in range(3000):
            loud.send(f"{broker.base}/d/pi-1/u/1/{part}", b"noise")
        assert loud.left.wait(5.0)
        assert calm.publish(f"{broker.base}/d/pi-2/u/1/0", b"good") == 0
        assert aggregator.wait_for(f"{broker.base}/d/pi-2/u/1/0", b"good")
        passed = sum("pi-1" in topic for topic, _, _ in aggregator.messages)
        assert 100 <= passed < 500, "about 100 and 50 a second"
        line = log_lines(broker, "pi-1")
        assert len(line) == 1 and "to publish: too many messages" in line[0]
        assert log_lines(broker, "pi-2") == [] and not calm.left.is_set()
        time.sleep(0.5)
        with broker.client("pi-1") as back:
            assert back.publish(f"{broker.base}/d/pi-1/u/1/0", b"later") == 0


def test_ten_megabytes_of_noise_become_its_budget(broker):
    broker.restart_with({"plugin_opt_bytes_per_s": "10000", "plugin_opt_bytes_at_once": "1000000"})
    with broker.client("aggregator") as aggregator, broker.client("pi-1") as loud:
        aggregator.subscribe(f"{broker.base}/#")
        for part in range(160):
            loud.send(f"{broker.base}/d/pi-1/u/1/{part}", bytes(65536))
        assert loud.left.wait(5.0)
        aggregator.publish(f"{broker.base}/round", b"end")
        assert aggregator.wait_for(f"{broker.base}/round", b"end")
        assert 900_000 < sum(len(payload) for _, payload, _ in aggregator.messages) <= 1_100_000
        assert "too many bytes" in log_lines(broker, "pi-1")[0]


def test_updates_of_ever_new_rounds_become_their_budget(broker):
    per_s = 20  # 1,200 a minute: the budget fills while it is spent
    with broker.client("pi-1") as one:
        began, answers = time.monotonic(), []
        while not one.left.is_set():
            answers.append(one.publish(f"{broker.base}/d/pi-1/u/{len(answers)}/0"))
        accepted = [n for n, answer in enumerate(answers) if answer in ACCEPTED]
        assert accepted[:1200] == list(range(1200))
        assert len(accepted) <= 1201 + per_s * (time.monotonic() - began)
        assert set(answers) <= {*ACCEPTED, DENIED, None}
    with broker.client("pi-1") as one:
        assert one.publish(f"{broker.base}/d/pi-1/u/{accepted[-1]}/1") in ACCEPTED, "of a round that it has begun"


def test_nobody_takes_the_connection_of_another_by_its_client_id(broker):
    with broker.client("aggregator", client_id="agg-fleet") as aggregator:
        for taken in ("agg-fleet", "aggregator"):
            broker.client("pi-1", client_id=taken).close()
        with broker.client("pi-1", client_id="aggregator") as one:
            assert one.publish(f"{broker.base}/manifest", b"forged") == DENIED
            assert aggregator.publish(f"{broker.base}/manifest", b"true") in ACCEPTED
        assert not aggregator.left.is_set()
    assert "as pi-1 (p5" in broker.log and "as agg-fleet (p5" not in broker.log


@pytest.mark.parametrize("name", ["+", "#", "dev-a/inbox", "agg-fleet", "-x", "../a", "dev a"])
def test_a_certificate_with_a_name_that_is_no_clients_is_good_for_nothing(broker, name):
    tls = broker.authority.client(name, file="odd")
    with broker.client("aggregator") as aggregator:
        aggregator.subscribe(f"{broker.base}/#")
        try:
            odd = RawClient(broker.port, tls)
        except ConnectionRefusedError:
            return
        with odd:
            for filter in (f"{broker.base}/#", f"{broker.base}/manifest", "#", "+/+/+/+"):
                odd.subscribe(filter)
            for topic in (
                f"{broker.base}/manifest",
                f"{broker.base}/d/{name.replace('+', 'a').replace('#', 'a')}/inbox",
            ):
                odd.publish(topic, b"forged")
            assert aggregator.publish(f"{broker.base}/manifest", b"true", retain=True) in ACCEPTED
            assert aggregator.wait_for(f"{broker.base}/manifest", b"true")
            assert odd.messages == []
        assert [message[:2] for message in aggregator.messages] == [(f"{broker.base}/manifest", b"true")]
        assert broker.log.count("guard: denied: a client whose name is no client's") == 1


def test_subscriptions_have_a_bound_in_each_session(broker):
    """mosquitto counts the most that a session ever had at a time."""
    with broker.client("pi-1") as one:
        answers = [one.subscribe(f"{broker.base}/model/0/{part}") for part in range(70)]
        assert answers == [1] * 64 + [DENIED] * 6
        for part in range(63):
            one.unsubscribe(f"{broker.base}/model/0/{part}")
    with broker.client("pi-1") as one:
        assert one.subscribe(f"{broker.base}/manifest") == 1


def test_a_revoked_client_is_out_within_two_seconds_and_stays_out(broker):
    with broker.client("aggregator") as aggregator, broker.client("pi-2") as other:
        one = broker.client("pi-1", will=(f"{broker.base}/d/pi-1/status", b"lost", True), session_s=3600)
        one.subscribe(f"{broker.base}/round")
        aggregator.subscribe(f"{broker.base}/d/+/status")
        broker.write(revoked=("pi-1",))
        assert one.left.wait(2.0)
        again = broker.client("pi-1", session_s=3600)  # the guard alone: mosquitto has not read the new list
        assert again.publish(f"{broker.base}/d/pi-1/status", b"forged") in (DENIED, None)
        assert again.left.wait(2.0)
        broker.authority.revoke("pi-1")
        broker.reload()
        with pytest.raises((ConnectionError, OSError, AssertionError)):
            broker.client("pi-1")
        assert other.publish(f"{broker.base}/d/pi-2/status", b"honest") == 0
        assert aggregator.wait_for(f"{broker.base}/d/pi-2/status", b"honest")
        assert [topic for topic, _, _ in aggregator.messages] == [f"{broker.base}/d/pi-2/status"], "no will either"
        assert other.subscribe("#") == DENIED, "the guard is asked before the ACL file that was just read again"
        assert not other.left.is_set()


def test_a_list_that_can_not_be_read_leaves_those_revoked_that_were(broker):
    broker.write(revoked=("pi-1",))
    (broker.files / "denied").write_text("+\n")
    broker.stop()
    assert broker.refuses_to_start() and "denied: a line is no client's name" in broker.log
    broker.write(revoked=("pi-1",))
    broker.start()
    (broker.files / "denied").write_text("+\n")
    eventually(lambda: "the 1 names read before stay revoked" in broker.log, 5.0)
    with broker.client("pi-1") as one:
        assert one.publish(f"{broker.base}/d/pi-1/status") in (DENIED, None)


@pytest.mark.parametrize("absent", ["denied", "acl", "crl.pem", "server.key"])
def test_without_one_of_its_files_the_broker_does_not_start(broker, absent):
    broker.stop()
    (broker.files / absent).unlink()
    assert broker.refuses_to_start()


@pytest.mark.parametrize("delay_s", [0, 1])
def test_a_will_is_judged_like_a_message(broker, delay_s):
    base = f"{broker.base}/d/pi-1"
    with broker.client("aggregator") as aggregator:
        aggregator.subscribe(f"{broker.base}/#")
        wills = [(f"{base}/u/1/0", b"retained", True), (f"{broker.base}/manifest", b"forged", True)]
        wills += [(f"{base}/status", bytes(9000), True), (f"{base}/status", b"lost", True)]
        for will in wills:
            ends = broker.log.count("Client pi-1 closed its connection")
            broker.client("pi-1", will=will, will_delay_s=delay_s, session_s=2 * delay_s).abort()
            eventually(lambda ends=ends: broker.log.count("Client pi-1 closed its connection") > ends)
            if delay_s:
                assert not aggregator.wait_for(will[0], will[1], 2.0) or will[1] == b"lost"
        assert aggregator.wait_for(f"{base}/status", b"lost")
        assert [payload for _, payload, _ in aggregator.messages] == [b"lost"]


def test_a_device_that_asks_for_a_part_again_and_again_receives_its_budget(broker):
    """Each subscription of 60 bytes brings 64 KiB."""
    broker.restart_with({"plugin_opt_bytes_at_once": "2000000", "plugin_opt_bytes_per_s": "1000"})
    with broker.client("aggregator") as aggregator, broker.client("pi-1") as greedy:
        assert aggregator.publish(f"{broker.base}/model/0/0", bytes(65536), retain=True) in ACCEPTED
        for _ in range(300):
            greedy._client.subscribe(f"{broker.base}/model/0/0", qos=1)
        assert greedy.left.wait(5.0)
        assert 0 < sum(len(payload) for _, payload, _ in greedy.messages) <= 2_100_000, "of 20 MB"


def test_clients_beyond_the_guards_accounts_are_denied():
    with GuardedMosquitto(options={"plugin_opt_clients": "3"}) as broker:
        names = [f"pi-{n}" for n in range(6)]
        clients = [broker.client(name) for name in names]
        answers = [c.publish(f"{broker.base}/d/{n}/status") for c, n in zip(clients, names, strict=True)]
        assert [a in ACCEPTED for a in answers] == [True] * 3 + [False] * 3
        for client in clients:
            client.close()
