"""The operator's folder: what each command makes, and what `list` warns of."""

from __future__ import annotations

import json
import ssl
import stat
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from cryptography import x509
from edgefl_agent.config import AgentConfig
from enrolled import DAY_S, certificate, name_of, openssl_accepts, revoked_serials, roster, signer, unpack

from edgefl.cli.main import main
from edgefl.hosting.config import AggregatorConfig
from edgefl.keys import enrolment, folder
from edgefl.keys.enrolment import Terms
from edgefl.keys.report import SOON_DAYS, report
from edgefl.settings import files
from edgefl.trust.ed25519 import SigningKey
from edgefl.trust.key_files import read_public, read_seed
from edgefl.viewer.config import load

# ---- what is made


def test_a_new_folder_has_what_aggregator_and_broker_need(keys: Path) -> None:
    mine = {path.name for path in (keys / "aggregator").iterdir()}
    assert mine == {
        "ca.crt", "aggregator.crt", "aggregator.key", "root.pub", "signer.key", "signer.json", "roster.json",
        "aggregator.toml",
    }  # fmt: skip
    brokers = {path.name for path in (keys / "broker").iterdir()}
    assert brokers == {"mosquitto.conf", "acl", "denied", "ca.crt", "server.crt", "server.key", "crl.pem"}
    assert name_of(certificate(keys / "aggregator" / "aggregator.crt")) == "aggregator"
    server = certificate(keys / "broker" / "server.crt")
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.example.org"]
    assert openssl_accepts(keys, keys / "aggregator" / "aggregator.crt", "sslclient")
    assert openssl_accepts(keys, keys / "broker" / "server.crt", "sslserver")
    assert not openssl_accepts(keys, keys / "broker" / "server.crt", "sslclient"), "it must log nobody in"
    config = files.load(keys / "aggregator" / "aggregator.toml", AggregatorConfig)
    assert config.mqtt.url == "mqtts://broker.example.org:8883"
    assert config.mqtt.cert == str(keys / "aggregator" / "aggregator.crt")


def test_nobody_but_the_operator_can_read_the_folder(keys: Path, tmp_path: Path) -> None:
    enrolment.add(keys, ["pi-01"])
    for path in [keys, *keys.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        public = {keys / "broker" / name for name in ("mosquitto.conf", "acl", "denied")}
        assert mode == (0o700 if path.is_dir() else 0o640 if path in public else 0o600), path
    for path in unpack(keys / "devices" / "pi-01.tar", tmp_path / "pi-01").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_root_certifies_the_aggregators_signing_key(keys: Path) -> None:
    found = signer(keys)
    assert found.epoch == 1 and abs(found.serial - time.time()) < 60
    assert found.public == SigningKey(read_seed(keys / "aggregator" / "signer.key")).public


def test_a_device_is_given_all_that_its_agent_needs(keys: Path, tmp_path: Path) -> None:
    terms = Terms(source="npz:/data/{name}.npz", max_examples=500, canary=True)
    (bundle,) = enrolment.add(keys, ["pi-01"], terms)
    home = unpack(bundle, tmp_path / "pi-01")
    assert {path.name for path in home.iterdir()} == {
        "agent.toml", "ca.crt", "device.crt", "device.key", "root.pub", "signer.json", "signing.key",
    }  # fmt: skip
    config = files.load(home / "agent.toml", AgentConfig)
    assert (config.federation, config.device_id, config.data.source) == ("f", "pi-01", "npz:/data/pi-01.npz")
    assert (config.keys.dir, config.mqtt.key) == (str(home), str(home / "device.key"))
    context = ssl.create_default_context(cafile=config.mqtt.ca)
    context.load_cert_chain(config.mqtt.cert, config.mqtt.key)  # which belong together
    assert openssl_accepts(keys, home / "device.crt", "sslclient")
    assert name_of(certificate(home / "device.crt")) == "pi-01"
    assert read_public(home / "root.pub") == read_public(keys / "aggregator" / "root.pub")
    member = roster(keys).get("pi-01")
    assert member is not None and (member.max_examples, member.canary) == (500, True)
    assert member.public == SigningKey(read_seed(home / "signing.key")).public


def test_a_bundle_belongs_to_whoever_unpacks_it_and_stays_in_its_folder(keys: Path) -> None:
    (bundle,) = enrolment.add(keys, ["pi-01"])
    with tarfile.open(bundle) as tar:
        assert all("/" not in one.name and one.isreg() and one.mode == 0o600 for one in tar)


def test_viewers_and_helpers_have_certificates_and_no_signing_key(keys: Path, tmp_path: Path) -> None:
    (viewer,) = enrolment.add(keys, ["wall"], role="viewer")
    (helper,) = enrolment.add(keys, ["second"], role="helper")
    assert (viewer, helper) == (keys / "viewers" / "viewer-wall.tar", keys / "helpers" / "helper-second.tar")
    home = unpack(viewer, tmp_path / "viewer")
    files = {"ca.crt", "viewer.crt", "viewer.key", "root.pub", "viewer.toml"}
    assert {path.name for path in home.iterdir()} == files
    assert load(home / "viewer.toml").mqtt.key == str(home / "viewer.key")
    assert name_of(certificate(home / "viewer.crt")) == "viewer-wall"
    acl = (keys / "broker" / "acl").read_text()
    assert "user viewer-wall" in acl and "user helper-second" in acl
    assert roster(keys).devices == {}


def test_a_fleet_has_numbered_names(keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "add", str(keys), "--count", "12", "--prefix", "pi-"]) == 0
    assert list(roster(keys).devices) == [f"pi-{n:02}" for n in range(1, 13)]
    assert len({one.key for one in roster(keys).devices.values()}) == 12
    assert main(["keys", "add", str(keys), "--count", "12"]) == 2
    assert main(["keys", "add", str(keys), "--count", "2", "--prefix", "pi-", "--first", "13"]) == 0
    assert list(roster(keys).devices)[12:] == ["pi-13", "pi-14"]


def test_serials_rise_with_each_change(keys: Path) -> None:
    rosters, signers = [roster(keys).serial], [signer(keys).serial]
    enrolment.add(keys, ["pi-01"])
    rosters.append(roster(keys).serial)
    enrolment.revoke_names(keys, ["pi-01"])
    rosters.append(roster(keys).serial)
    assert enrolment.next_epoch(keys) == signer(keys).epoch == 2
    signers.append(signer(keys).serial)
    key = signer(keys).key
    enrolment.renew_signer(keys)
    signers.append(signer(keys).serial)
    assert signer(keys).epoch == 2 and signer(keys).key != key
    for numbers in (rosters, signers):
        assert numbers == sorted(set(numbers)), "each is above the one before, within the same second too"


def test_a_folder_restored_from_a_backup_does_not_fall_behind(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backup = (keys / "records.json").read_bytes()
    for name in ("pi-01", "pi-02", "pi-03"):
        enrolment.add(keys, [name])
    seen = roster(keys).serial
    (keys / "records.json").write_bytes(backup)
    now = time.time()
    monkeypatch.setattr(folder.time, "time", lambda: now + 60)
    enrolment.add(keys, ["pi-01"])
    assert roster(keys).serial > seen


# ---- revoked and renewed


def test_a_revoked_device_is_out_everywhere(keys: Path, tmp_path: Path) -> None:
    home = unpack(enrolment.add(keys, ["pi-01", "pi-02"])[0], tmp_path / "pi-01")
    enrolment.revoke_names(keys, ["pi-01"])
    assert (keys / "broker" / "denied").read_text() == "pi-01\n"
    assert "user pi-01\ntopic deny edgefl/2/f/#" in (keys / "broker" / "acl").read_text()
    assert revoked_serials(keys) == {certificate(home / "device.crt").serial_number}
    assert not openssl_accepts(keys, home / "device.crt", "sslclient")
    assert roster(keys).get("pi-01") is None and roster(keys).devices["pi-01"].revoked
    assert roster(keys).get("pi-02") is not None
    enrolment.revoke_names(keys, ["pi-01"])  # again: no harm


def test_a_revoked_name_can_be_enrolled_anew_and_its_old_certificates_stay_out(keys: Path, tmp_path: Path) -> None:
    old = unpack(enrolment.add(keys, ["pi-01"])[0], tmp_path / "old")
    enrolment.revoke_names(keys, ["pi-01"])
    new = unpack(enrolment.add(keys, ["pi-01"])[0], tmp_path / "new")
    assert (keys / "broker" / "denied").read_text() == ""
    assert openssl_accepts(keys, new / "device.crt", "sslclient")
    assert not openssl_accepts(keys, old / "device.crt", "sslclient")
    member = roster(keys).get("pi-01")
    assert member is not None and member.public == SigningKey(read_seed(new / "signing.key")).public


def test_the_aggregators_old_certificates_are_revoked_with_its_renewal(keys: Path) -> None:
    """A stolen one reads all updates at the broker, and takes the aggregator's connection again and again."""
    path = keys / "aggregator" / "aggregator.crt"
    old = []
    for _ in range(2):
        old.append(certificate(path).serial_number)
        enrolment.renew_aggregator(keys)
        assert revoked_serials(keys) == set(old)
        assert openssl_accepts(keys, path, "sslclient")


def test_who_enrols_a_revoked_name_anew_is_told_that_the_broker_must_hear_of_it(keys: Path, capsys) -> None:
    """Until `denied` is copied, the guard goes on throwing the name out."""
    for command, told in (("add", False), ("revoke", True), ("add", True)):
        assert main(["keys", command, str(keys), "pi-01"]) == 0
        assert ("acl, denied and crl.pem" in capsys.readouterr().out) == told
    assert (keys / "broker" / "denied").read_text() == ""


def test_the_list_of_revoked_certificates_outlives_every_certificate(keys: Path) -> None:
    revocations = x509.load_pem_x509_crl((keys / "broker" / "crl.pem").read_bytes())
    assert revocations.next_update_utc == certificate(keys / "root" / "ca.crt").not_valid_after_utc
    ends = [certificate(path).not_valid_after_utc for path in keys.rglob("*.crt")]
    assert revocations.next_update_utc >= max(ends)
    enrolment.add(keys, ["pi-01"])
    enrolment.revoke_names(keys, ["pi-01"])
    revocations = x509.load_pem_x509_crl((keys / "broker" / "crl.pem").read_bytes())
    assert revocations.last_update_utc == certificate(keys / "root" / "ca.crt").not_valid_before_utc, (
        "clocks are behind"
    )


def test_a_renewed_device_keeps_its_signing_key_and_its_configuration(keys: Path, tmp_path: Path) -> None:
    home = unpack(enrolment.add(keys, ["pi-01"])[0], tmp_path / "pi-01")
    (home / "agent.toml").write_text("mine")
    before, old, number = read_seed(home / "signing.key"), certificate(home / "device.crt"), roster(keys)
    unpack(enrolment.renew(keys, ["pi-01"])[0], home)
    assert (read_seed(home / "signing.key"), (home / "agent.toml").read_text()) == (before, "mine")
    assert certificate(home / "device.crt").serial_number != old.serial_number
    assert openssl_accepts(keys, home / "device.crt", "sslclient")
    assert roster(keys) == number, "nothing else changes"
    enrolment.revoke_names(keys, ["pi-01"])
    assert revoked_serials(keys) == {old.serial_number, certificate(home / "device.crt").serial_number}


@pytest.mark.parametrize(
    ("work", "key", "crt"),
    [
        (enrolment.renew_aggregator, "aggregator/aggregator.key", "aggregator/aggregator.crt"),
        (enrolment.renew_broker, "broker/server.key", "broker/server.crt"),
    ],
)
def test_the_federations_own_certificates_are_renewed(keys: Path, work, key: str, crt: str) -> None:
    before = [(keys / name).read_bytes() for name in (key, crt)]
    work(keys)
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(keys / crt, keys / key)
    assert [(keys / name).read_bytes() for name in (key, crt)] != before


def test_the_brokers_new_names_are_in_its_renewed_certificate(keys: Path) -> None:
    path = keys / "federation.toml"
    path.write_text(path.read_text().replace("also = []", 'also = ["10.0.0.7", "mqtt.lan"]'))
    enrolment.renew_broker(keys)
    read = certificate(keys / "broker" / "server.crt").extensions
    names = read.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["broker.example.org", "10.0.0.7", "mqtt.lan"]


def test_keys_that_live_on_their_own_machine_only_are_not_made_again(keys: Path) -> None:
    away = [keys / name for name in ("aggregator/signer.key", "aggregator/aggregator.key", "broker/server.key")]
    before = signer(keys)
    for path in away:
        path.unlink()
    enrolment.add(keys, ["pi-01"])
    assert not any(path.exists() for path in away)
    assert signer(keys) == before
    assert enrolment.next_epoch(keys) == 2
    assert signer(keys).key == before.key


def test_what_an_operator_changed_in_the_configurations_stays(keys: Path) -> None:
    for name in ("aggregator/aggregator.toml", "broker/mosquitto.conf"):
        (keys / name).write_text("mine")
    enrolment.add(keys, ["pi-01"])
    assert [(keys / name).read_text() for name in ("aggregator/aggregator.toml", "broker/mosquitto.conf")] == [
        "mine"
    ] * 2


# ---- what expires


def test_list_warns_of_all_that_expires_soon(
    keys: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    enrolment.add(keys, ["pi-01", "pi-02", "pi-03"])
    enrolment.revoke_names(keys, ["pi-03"])
    assert report(keys).warnings == []
    later = certificate(keys / "broker" / "server.crt").not_valid_after_utc.timestamp()
    monkeypatch.setattr(folder.time, "time", lambda: later - SOON_DAYS * DAY_S / 2)
    enrolment.renew(keys, ["pi-02"])
    warnings = report(keys).warnings
    assert [line.split()[0] for line in warnings] == ["the", "the", "the", "pi-01:"], warnings
    assert all("expires on" in line and "edgefl keys renew DIR" in line for line in warnings)
    monkeypatch.setattr(
        folder.time, "time", lambda: certificate(keys / "root" / "ca.crt").not_valid_after_utc.timestamp() - 1
    )
    warnings = report(keys).warnings
    assert any("list of revoked certificates, which locks every client out" in line for line in warnings)
    assert any("pi-01: its certificate expired on" in line for line in warnings)
    capsys.readouterr()
    assert main(["keys", "list", str(keys), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["warnings"] == warnings
    assert {row["name"]: row["state"] for row in found["members"]} == {
        "pi-01": "enrolled", "pi-02": "enrolled", "pi-03": "revoked",
    }  # fmt: skip


def test_no_certificate_outlives_its_authority(keys: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    end = certificate(keys / "root" / "ca.crt").not_valid_after_utc
    monkeypatch.setattr(folder.time, "time", lambda: end.timestamp() - DAY_S)
    home = unpack(enrolment.add(keys, ["pi-01"])[0], tmp_path / "pi-01")
    assert certificate(home / "device.crt").not_valid_after_utc == end


def test_without_cryptography_the_command_says_what_to_install(keys: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from edgefl.cli.main import main\n"
        f"sys.exit(main(['keys', 'list', {str(keys)!r}]))"
    )
    import sys

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "pip install 'edgefl-toolkit[operator]'" in done.stderr
