"""Every declared setting is in TOML, --set, options, API, manifest or aggregator, and reference: same default, same
bounds."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Literal, get_args, get_origin

import msgspec
import pytest
from conftest import ROOT
from edgefl_agent.config import AgentConfig

import edgefl
from edgefl import auto
from edgefl.cli import main as cli
from edgefl.cli.values import flag
from edgefl.errors import UsageError
from edgefl.federation import make_manifest
from edgefl.hosting.config import AggregatorConfig
from edgefl.onnx import zoo
from edgefl.onnx.load import load
from edgefl.settings import Settings, files, schema
from edgefl.settings.render import dump, render, toml
from edgefl.simulation.options import DEFAULTS, ROUNDS, FleetOptions
from edgefl.simulation.simulate import simulate

SETTINGS = list(schema.settings_of(Settings))
PLAN = load(zoo.mlp([4, 3, 3])).plan
REQUIRED = {"federation": "pond", "model": "m.onnx", "mqtt": {"url": "mqtt://localhost"}}
# What the manifest carries, by the setting's key. All others are the aggregator's own.
IN_MANIFEST = {
    **{f"train.{name}": f"train.{name}" for name in edgefl.settings.TrainSettings.__struct_fields__},
    "codec.name": "codec", "codec.error_feedback": "error_feedback", "codec.part_bytes": "part_bytes",
    "downlink.name": "downlink", "downlink.span": "span", "evaluate.holdout": "holdout", "personal.keep": "personal",
}  # fmt: skip

every_setting = pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.key)


def another(setting: schema.Setting) -> Any:
    """An allowed value that is not the default."""
    if setting.key == "train.momentum":
        return 0.5
    known = {"strategy.name": "fedsgd", "codec.name": "ecq:step=2", "downlink.name": "raw32"}
    known |= {"codec.error_feedback": True, "downlink.span": 7, "evaluate.test_data": "digits"}
    if setting.key in known:
        return known[setting.key]
    base = schema.base_types(setting.hint)[0]
    if base is bool:
        return not setting.default
    if get_origin(base) is Literal:
        return next(choice for choice in get_args(base) if choice != setting.default)
    candidates = (setting.example, 3, 4, 0.25, 1024)
    for candidate in candidates:
        if candidate is not msgspec.NODEFAULT and candidate != setting.default:
            try:
                return schema.convert(setting.key, candidate, setting.hint)
            except UsageError:
                continue
    raise AssertionError(f"no value for {setting.key}")


def wrong(setting: schema.Setting) -> Any:
    """A value that the setting does not allow."""
    for value in (-1, 2.5, "no such word", [], True):
        try:
            schema.convert("", value, setting.hint)
        except UsageError:
            return value
    raise AssertionError(f"{setting.key} allows everything")


def value_of(struct: Any, key: str) -> Any:
    for name in key.split("."):
        struct = getattr(struct, name)
    return struct


def nested(setting: schema.Setting, value: Any) -> dict[str, Any]:
    section, name = setting.path
    return {section: {name: value}}


def options() -> dict[str, argparse.Action]:
    """The options of `edgefl simulate` by name."""
    parser = cli.make_parser()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return {word: action for action in commands.choices["simulate"]._actions for word in action.option_strings}


@every_setting
def test_it_is_described_with_its_unit_in_its_name(setting):
    assert setting.description.endswith(".") and len(setting.description) > 15
    assert setting.default is not msgspec.NODEFAULT
    named = {"seconds": "_s", "bytes": "_bytes", "megabytes": "_mb"}
    unit = named.get(setting.description.split()[0].lower())
    assert unit is None or setting.path[-1].endswith(unit)


def test_short_names_are_unique():
    short = [setting.short for setting in SETTINGS]
    assert len(set(short)) == len(short)
    assert not set(short) & {field.name for field in msgspec.structs.fields(FleetOptions)}


@every_setting
def test_toml(setting, tmp_path):
    path, value = tmp_path / "aggregator.toml", another(setting)
    path.write_text(dump(REQUIRED))
    assert value_of(files.load(path, AggregatorConfig), setting.key) == setting.default
    path.write_text(dump(REQUIRED | nested(setting, value)))
    assert value_of(files.load(path, AggregatorConfig), setting.key) == value
    assert value_of(Settings.load(path), setting.key) == value, "an aggregator's file, read for its settings"
    path.write_text(dump(REQUIRED | nested(setting, wrong(setting))))
    with pytest.raises(UsageError) as caught:
        files.load(path, AggregatorConfig)
    assert str(caught.value).startswith(f"aggregator.toml: [{setting.path[0]}] {setting.path[1]} is ")
    assert str(caught.value).endswith(f": give {setting.allowed}")


@pytest.mark.parametrize("section", Settings.__struct_fields__)
def test_a_misspelt_section_of_an_aggregators_file_is_not_left_to_the_aggregator(section, tmp_path):
    path = tmp_path / "aggregator.toml"
    path.write_text(dump(REQUIRED | {f"{section}x": {}}))
    with pytest.raises(UsageError, match=f"no key '{section}x'; did you mean '{section}'"):
        Settings.load(path)


@every_setting
def test_set(setting):
    value = another(setting)
    text = toml(value).strip('"')
    built = files.build(AggregatorConfig, REQUIRED, [f"{setting.key}={text}"])
    assert value_of(built, setting.key) == value
    if setting.default is None:
        assert value_of(files.build(AggregatorConfig, REQUIRED, [f"{setting.key}="]), setting.key) is None
    if not setting.allowed.startswith(("text", "a list, each text")):
        with pytest.raises(UsageError) as caught:
            files.build(AggregatorConfig, REQUIRED, [f"{setting.key}=no such word"])
        assert str(caught.value) == f"--set {setting.key}=no such word: 'no such word' is not {setting.allowed}"


@every_setting
def test_print_config(setting):
    section = render(AggregatorConfig).split(f"[{setting.path[0]}]")[1].split("\n\n")[0]
    shown = f"# {setting.path[1]} = " if setting.default is None else f"\n{setting.path[1]} = {toml(setting.default)}\n"
    assert shown in section + "\n"
    words = " ".join(section.replace("\n# ", " ").split())
    assert setting.description in words


@every_setting
def test_python_api(setting):
    value = another(setting)
    for name in (setting.short, setting.key):
        assert value_of(Settings().replace(**{name: value}), setting.key) == value
    with pytest.raises(UsageError) as caught:
        Settings().replace(**{setting.short: wrong(setting)})
    assert str(caught.value).endswith(f": give {setting.allowed}") and str(caught.value).startswith(setting.key)


@every_setting
def test_option_and_help(setting, capsys):
    action = options()[flag(setting)]
    text = " ".join((action.help or "").replace("%%", "%").split())
    assert setting.description.rstrip(".") in text
    default = ROUNDS if setting.key == "rounds.rounds" else setting.default
    assert default is None or f"(default: {toml(default)})" in text
    if action.choices:
        assert tuple(action.choices) == get_args(schema.base_types(setting.hint)[0])
    else:
        assert setting.allowed == "text" or setting.allowed in text


@every_setting
def test_manifest_or_aggregator(setting):
    def made(**changes: Any) -> Any:
        named = {"codec.name": "raw32", "downlink.name": "raw32", "downlink.span": 1, "evaluate.holdout": 0.0}
        named |= {"privacy.helpers": "north", "rounds.expect": 9}
        return make_manifest(Settings().replace(**named | changes), "pond", "0" * 16, PLAN)

    if setting.key not in IN_MANIFEST and setting.key != "strategy.name":
        changed = made(**{setting.key: another(setting)})
        assert changed == made(), "the aggregator's alone"
        return
    plain, changed = made(), made(**{setting.key: another(setting)})
    other = {"codec.name": "ecq:step=2", "downlink.name": "ecq:step=8", "strategy.name": "fedsgd"}
    other |= {"personal.keep": ["head"]}
    if setting.key in other:
        assert made(**{setting.key: other[setting.key]}) != plain
    else:
        assert changed != plain
        assert value_of(changed, IN_MANIFEST[setting.key]) == another(setting)


def test_the_reference_page_and_the_samples_are_current():
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import write_settings
    finally:
        sys.path.pop(0)
    for path, text in write_settings.outputs().items():
        assert path.read_text(encoding="utf-8") == text, "run: python docs/write_settings.py"
    page = write_settings.page()
    for setting in SETTINGS:
        default = "" if setting.default is None else f"`{toml(setting.default)}`"
        assert f"| `{setting.path[1]}` | {setting.allowed} | {default} | {setting.description} |" in page


def test_simulations_have_the_declared_defaults():
    import inspect

    parameters = inspect.signature(simulate).parameters
    for field in msgspec.structs.fields(FleetOptions):
        assert parameters[field.name].default == field.default == getattr(DEFAULTS, field.name)
    expected = Settings().replace(rounds=ROUNDS, expect=2, interval_s=0.0, target_accuracy=0.0)
    run = simulate("mlp:64-10", "digits", devices=2, target_accuracy=0.0).run
    assert run.settings == auto.apply(expected, auto.Choice("ecq", "ecq:step=8", 1))


@pytest.mark.parametrize("config", [AggregatorConfig, AgentConfig])
def test_deployment_keys_are_settable_too(config):
    for setting in schema.settings_of(config):
        assert setting.description, setting.key


def test_a_setting_that_is_not_there_gets_the_nearest():
    for name, hint in (("lrr", "'lr'"), ("train.lrr", "'train.lr'"), ("bach_size", "'batch_size'")):
        with pytest.raises(UsageError, match=f"no setting '{name}': did you mean {hint}"):
            Settings().replace(**{name: 1})
    with pytest.raises(UsageError, match=r"--set rounds\.gaol=3: there is no setting 'rounds\.gaol': did you mean"):
        files.build(AggregatorConfig, REQUIRED, ["rounds.gaol=3"])


def test_a_list_is_set_on_the_command_line(tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text(
        'federation = "f"\ndevice_id = "d"\n[mqtt]\nurl = "mqtt://localhost"\n[data]\nsource = "npz:x.npz"\n'
    )
    config = files.load(path, AgentConfig, ['model.command=["/bin/true", "a, b"]', "limits.pause_command=/bin/ask"])
    assert (config.model.command, config.limits.pause_command) == (["/bin/true", "a, b"], ["/bin/ask"])
