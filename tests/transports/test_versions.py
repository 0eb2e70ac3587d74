"""Which version of MQTT is spoken with brokers that do not answer one of them."""

from __future__ import annotations

import math

import pytest
from brokers import DeafProxy

from edgefl.transports.backoff import ANSWER_S, DOUBT_S, Versions
from edgefl.transports.mqtt import Down, Up


def test_versions_are_patient_with_the_broker_once_one_has_worked():
    versions = Versions("auto")
    assert versions.patience_s == ANSWER_S
    versions.learn(up=False, hung_up=True, unsupported=False)
    assert (versions.current, versions.patience_s) == ("3.1.1", math.inf)
    versions.learn(up=False, hung_up=True, unsupported=False)
    versions.learn(up=True, hung_up=False, unsupported=False)
    assert (versions.current, versions.patience_s) == ("5", math.inf)
    assert Versions("5").patience_s == math.inf


def test_a_broker_that_was_frozen_at_our_start_is_asked_for_mqtt_5_again():
    """Once the connection was a long one: after a short one, on a bad link, that would cost the wait each time."""
    versions = Versions("auto")
    versions.learn(up=False, hung_up=True, unsupported=False)
    versions.learn(up=True, hung_up=False, unsupported=False, lasted_s=DOUBT_S - 1)
    assert versions.current == "3.1.1"
    versions.learn(up=True, hung_up=False, unsupported=False, lasted_s=DOUBT_S)
    assert (versions.current, versions.patience_s) == ("5", ANSWER_S)
    versions.learn(up=False, hung_up=True, unsupported=False)
    assert versions.current == "3.1.1", "it does not know MQTT 5"
    versions.learn(up=True, hung_up=False, unsupported=False, lasted_s=DOUBT_S)
    versions.learn(up=True, hung_up=False, unsupported=False, lasted_s=DOUBT_S)
    assert (versions.current, versions.patience_s) == ("5", math.inf), "it was frozen"


@pytest.mark.parametrize("wanted", ["auto", "3.1.1"])
def test_a_broker_that_has_refused_mqtt_5_is_not_asked_again_and_neither_is_one_that_is_not_to_be_asked(wanted):
    versions = Versions(wanted)
    if wanted == "auto":
        versions.learn(up=False, hung_up=False, unsupported=True)
    versions.learn(up=True, hung_up=False, unsupported=False, lasted_s=DOUBT_S)
    assert versions.current == "3.1.1"


def test_a_broker_that_does_not_answer_mqtt_5_is_spoken_to_in_3_1_1(shared_mosquitto, link, monkeypatch):
    """And from then on at once: an outage does not cost the wait again."""
    monkeypatch.setattr("edgefl.transports.backoff.ANSWER_S", 0.6)
    with DeafProxy(shared_mosquitto.port) as deaf:
        one = link(deaf.url, "patient", keepalive=5)
        assert one.up().protocol == "3.1.1"
        assert one.inbox.wait(Down).reason == "no answer to MQTT 5 within 1 s"
        assert deaf.versions == [5, 4]
        deaf.cut()
        assert one.inbox.wait(Up).protocol == "3.1.1"
        assert deaf.versions == [5, 4, 4]
        monkeypatch.setattr("edgefl.transports.backoff.DOUBT_S", 0.0)
        deaf.cut()
        assert one.inbox.wait(Up).protocol == "3.1.1"
        assert deaf.versions == [5, 4, 4, 5, 4]
