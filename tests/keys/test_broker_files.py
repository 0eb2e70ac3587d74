"""The files of a federation's broker, as text; tests/e2e/test_acl_matrix.py asks mosquitto what they grant."""

from __future__ import annotations

import stat

import pytest

from edgefl.errors import UsageError
from edgefl.keys import broker_files


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
