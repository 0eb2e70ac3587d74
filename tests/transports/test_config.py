"""Configuration files: all mistakes at once, and a rendered file that loads again."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from edgefl.errors import UsageError
from edgefl.settings.files import load
from edgefl.settings.render import render


class Tls(Struct, forbid_unknown_fields=True):
    ca: Annotated[str, Meta(description="CA certificate.", examples=["/etc/ca.pem"])]
    check: bool = True


class Mqtt(Struct, forbid_unknown_fields=True):
    broker: Annotated[str, Meta(description="Where the MQTT broker is.", examples=["mqtts://broker:8883"])]
    keepalive: Annotated[int, Meta(ge=5, le=600, description="Seconds between pings.")] = 60
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    password: Annotated[str, Meta(description="Password.")] | None = None
    tls: Annotated[Tls | None, Meta(description="Encryption; without it all is in the clear.")] = None


class Training(Struct, forbid_unknown_fields=True):
    lr: Annotated[float, Meta(gt=0)] = 1e-05
    sizes: list[Annotated[int, Meta(ge=1)]] = msgspec.field(default_factory=lambda: [1, 2])
    options: dict[str, float] = {}

    def __post_init__(self) -> None:
        if len(self.sizes) > 3:
            raise ValueError("sizes: give at most 3")


class Agent(Struct, forbid_unknown_fields=True):
    device: Annotated[str, Meta(description="The device's name.")]
    mqtt: Mqtt
    training: Training = msgspec.field(default_factory=Training)
    greeting: str = 'a "quoted"\nπ \\ \x7f'


@pytest.fixture
def toml(tmp_path):
    def write(text: str | bytes):
        path = tmp_path / "agent.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def problems(path, schema=Agent) -> list[str]:
    with pytest.raises(UsageError) as caught:
        load(path, schema)
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


def test_values_and_defaults(toml):
    agent = load(
        toml('device = "a"\n[mqtt]\nbroker = "b"\nkeepalive = 5\n[mqtt.tls]\nca = "c"\n[training]\nlr = 1\n'), Agent
    )
    assert agent == Agent("a", Mqtt("b", keepalive=5, tls=Tls("c")), Training(lr=1.0))


def test_every_mistake_is_listed_with_its_table(toml):
    text = """
        device = 5
        trainnig = 1
        [mqtt]
        broekr = "b"
        keepalive = 0
        protocol = "4"
        password = false
        [mqtt.tls]
        Ca = "c"
        check = "yes"
        [training]
        lr = 0
        sizes = [1, 0]
        options = { a = "b" }
        """
    assert problems(toml(text)) == [
        "agent.toml: the top level has no key 'trainnig'; did you mean 'training'?",
        "agent.toml: device is 5: give text",
        "agent.toml: [mqtt] has no key 'broekr'; did you mean 'broker'?",
        'agent.toml: [mqtt] needs broker = "mqtts://broker:8883": Where the MQTT broker is.',
        "agent.toml: [mqtt] keepalive is 0: give a whole number from 5 to 600",
        'agent.toml: [mqtt] protocol is \'4\': give "auto", "5" or "3.1.1"',
        "agent.toml: [mqtt] password is False: give text",
        "agent.toml: [mqtt.tls] has no key 'Ca'; did you mean 'ca'?",
        'agent.toml: [mqtt.tls] needs ca = "/etc/ca.pem": CA certificate.',
        "agent.toml: [mqtt.tls] check is 'yes': give true or false",
        "agent.toml: [training] lr is 0: give a number above 0",
        "agent.toml: [training] sizes is [1, 0]: give a list, each a whole number of at least 1",
        "agent.toml: [training] options is {'a': 'b'}: give a table, each value a number",
    ]


def test_missing_tables_and_tables_that_are_none(toml):
    assert problems(toml("")) == [
        "agent.toml: the top level needs device = ...: The device's name.",
        'agent.toml: [mqtt] needs broker = "mqtts://broker:8883": Where the MQTT broker is.',
    ]
    assert problems(toml('device = "a"\nmqtt = 1\ntraining = []\n')) == [
        "agent.toml: mqtt is 1: give a table",
        "agent.toml: training is []: give a table",
    ]


def test_rules_across_keys_name_the_file(toml):
    (problem,) = problems(toml("sizes = [1, 2, 3, 4]\n"), Training)
    assert problem.startswith("agent.toml: sizes: give at most 3")


def test_files_that_cannot_be_read(toml, tmp_path):
    assert problems(tmp_path / "absent.toml") == [
        f"can't read {tmp_path}/absent.toml: No such file or directory: a daemon's --print-config writes a sample"
    ]
    assert "Is a directory" in problems(tmp_path)[0]
    (problem,) = problems(toml("device = 'a'\nmqtt = b\n"))
    assert problem.startswith("agent.toml is not TOML: ") and "line 2" in problem
    assert "not TOML" in problems(toml(b"device = '\xff'\n"))[0]


def test_rendered_defaults_show_every_key():
    assert (
        render(Agent)
        == r"""# The device's name. (required)
# device = ...
greeting = "a \"quoted\"\nπ \\ \u007f"

[mqtt]
# Where the MQTT broker is. (required)
# broker = "mqtts://broker:8883"
# Seconds between pings.
keepalive = 60
protocol = "auto"
# Password.
# password = ...

# Encryption; without it all is in the clear.
# [mqtt.tls]
# CA certificate. (required)
# ca = "/etc/ca.pem"
# check = true

[training]
lr = 1e-05
sizes = [1, 2]
options = {  }
"""
    )


def test_rendered_defaults_load_once_filled_in(toml):
    text = render(Agent)
    path = toml(text)
    assert len(problems(path)) == 2
    filled = text.replace("# device = ...", 'device = "a"').replace("# broker", "broker")
    assert load(toml(filled), Agent) == Agent("a", Mqtt("mqtts://broker:8883"))
    encrypted = filled.replace("# [mqtt.tls]", "[mqtt.tls]").replace("# ca =", "ca =").replace("# check", "check")
    assert load(toml(encrypted), Agent).mqtt.tls == Tls("/etc/ca.pem")


@given(
    st.builds(
        Agent,
        device=st.text(st.characters(exclude_categories=["Cs"])),
        mqtt=st.builds(
            Mqtt,
            broker=st.text(),
            keepalive=st.integers(5, 600),
            protocol=st.just("5"),
            password=st.none() | st.text(),
            tls=st.none() | st.builds(Tls, ca=st.text(), check=st.booleans()),
        ),
        training=st.builds(
            Training,
            lr=st.floats(min_value=0, exclude_min=True, allow_nan=False),
            sizes=st.lists(st.integers(1, 2**62), max_size=3),
            options=st.dictionaries(st.text(), st.floats(allow_nan=False)),
        ),
        greeting=st.text(),
    )
)
def test_a_rendered_instance_loads_as_itself(tmp_path_factory, agent):
    path = tmp_path_factory.getbasetemp() / "instance.toml"
    path.write_text(render(agent), encoding="utf-8")
    assert load(path, Agent) == agent
