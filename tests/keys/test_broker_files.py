"""The files of a federation's broker, as text; tests/e2e/test_acl_matrix.py asks mosquitto what they grant."""

from __future__ import annotations

import stat

import pytest

from edgefl.errors import UsageError
from edgefl.keys import broker_files
from edgefl.protocol.envelope import HEADER_BYTES, MAX_PART_BYTES
from edgefl.protocol.messages import RETAINED_LIMIT
from edgefl.protocol.parts import DEFAULT_PART_BYTES, TOPIC_BYTES, fitting_part_bytes


def test_an_operators_changes_of_the_configuration_stay(tmp_path):
    broker_files.write(tmp_path, federation="fleet", root="edgefl/2")
    conf = tmp_path / "mosquitto.conf"
    assert conf.read_text() == broker_files.mosquitto_conf("fleet", "edgefl/2")
    conf.write_text("mine")
    broker_files.write(tmp_path, federation="fleet", root="edgefl/2", revoked=["pi-2", "pi-1", "pi-2"])
    assert conf.read_text() == "mine"
    assert (tmp_path / "denied").read_text() == "pi-1\npi-2\n"
    assert "user pi-1\ntopic deny edgefl/2/fleet/#\n" in (tmp_path / "acl").read_text()
    assert stat.S_IMODE((tmp_path / "acl").stat().st_mode) == 0o640


def test_whatever_part_fits_into_a_packet_passes_the_guard():
    text = broker_files.mosquitto_conf("fleet", "edgefl/2")
    packet, part = (int(text.split(f"\n{key} ")[1].split()[0]) for key in ("max_packet_size", "plugin_opt_part_bytes"))
    longest = fitting_part_bytes(MAX_PART_BYTES, MAX_PART_BYTES, packet) + HEADER_BYTES
    assert DEFAULT_PART_BYTES + HEADER_BYTES <= longest <= part
    assert packet >= RETAINED_LIMIT + TOPIC_BYTES


def test_a_revoked_viewer_has_its_denial_only():
    text = broker_files.acl("fleet", "edgefl/2", revoked=["viewer-x"], viewers=["viewer-x", "viewer-y"])
    assert text.count("user viewer-x\n") == 1
    assert "user viewer-x\ntopic deny edgefl/2/fleet/#\n" in text
    assert "user viewer-y\ntopic deny edgefl/2/fleet/d/viewer-y/#\n" in text


def test_what_can_not_be_written_says_where(tmp_path):
    with pytest.raises(UsageError, match="can't be revoked"):
        broker_files.acl("fleet", "edgefl/2", revoked=["aggregator"])
    with pytest.raises(UsageError, match=r"acl: .*check the folder"):
        broker_files.write(tmp_path / "absent", federation="fleet", root="edgefl/2")
