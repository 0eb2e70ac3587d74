"""What the three programs' command lines share: strict options, hints, help, completion, log lines, `python -m`."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from edgefl_agent import __main__ as agent
from edgefl_broker import __main__ as aggregator
from edgefl_broker import replay
from edgefl_broker.progress import LiveLine

import edgefl
from edgefl.cli import main as cli
from edgefl.coordinator.snapshot import Snapshot
from edgefl.hosting import launch
from edgefl.hosting.command import Parser
from edgefl.hosting.log_lines import JsonLines, TextLines

MAINS = {"edgefl": cli, "edgefl-agent": agent, "edgefl-aggregator": aggregator}


def parsers() -> dict[str, argparse.ArgumentParser]:
    """Each parser that an operator may ask for help: of the programs and of every command."""
    found: dict[str, argparse.ArgumentParser] = {}
    for name, module in MAINS.items():
        found[name] = module.make_parser()
        for action in found[name]._actions:
            if isinstance(action, argparse._SubParsersAction):
                found.update({f"{name} {command}": parser for command, parser in action.choices.items()})
    return found


PARSERS = parsers()
OPTIONS = {
    f"{name} {'/'.join(action.option_strings) or action.dest}": (parser, action)
    for name, parser in PARSERS.items()
    for action in parser._actions
    if not isinstance(action, argparse._HelpAction | argparse._SubParsersAction)
}


def refusal(parser: argparse.ArgumentParser, words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What is said when `words` are wrong use."""
    with pytest.raises(SystemExit) as end:
        parser.parse_args(words)
    out, err = capsys.readouterr()
    assert end.value.code == 2 and out == ""
    return err


# ---- help


def test_every_command_of_the_table_has_a_parser():
    assert set(PARSERS) == {*MAINS, *(f"edgefl {command}" for command in cli.COMMANDS)}


@pytest.mark.parametrize("words", ["--config agent.toml", "--config a.toml --config b/c.toml"])
def test_the_words_of_an_agents_unit_give_the_options_of_the_parser(words):
    plain = launch.plain(words.split(), **agent.UNASKED)
    assert plain is not None and vars(plain) == vars(agent.make_parser().parse_args(words.split()))


@pytest.mark.parametrize(
    "words",
    [
        "",
        "--config",
        "--config ",
        "--config -x",
        "a.toml --config",
        "--config a --check",
        "--check --config a",
        "--conf a",
    ],
)
def test_all_other_words_are_for_the_parser(words):
    assert launch.plain(words.split(" ") if words else [], **agent.UNASKED) is None


@pytest.mark.parametrize("name", PARSERS)
def test_help_has_an_example_that_the_parser_itself_accepts(name):
    text = PARSERS[name].format_help()
    examples = text.partition("\nexample:\n")[2].splitlines()
    assert examples
    for line in examples:
        program, *words = line.partition(" > ")[0].split()
        if "--help" not in words:
            MAINS[program].make_parser().parse_args(words)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_has_a_help_text_a_group_and_its_default(option):
    parser, action = OPTIONS[option]
    assert action.help, "says what it does"
    groups = [group.title for group in parser._action_groups if action in group._group_actions]
    assert groups and groups[-1] not in ("options", "optional arguments", "positional arguments")
    if action.default not in (None, False, [], "", argparse.SUPPRESS):
        entry = parser.format_help().split(f"\n  {action.option_strings[0]} ")[1]
        said = re.sub(r"\s+", "", entry.partition("\n  --")[0])
        assert f"(default:{action.default})".replace(" ", "") in said


# ---- wrong words


def shortened(action: argparse.Action) -> str:
    """The option without its last letter, as an operator may abbreviate it."""
    return action.option_strings[0][:-1]


@pytest.mark.parametrize(
    "option",
    [
        option
        for option, (parser, action) in OPTIONS.items()
        if action.option_strings and shortened(action) not in parser._option_string_actions
    ],
)
def test_an_abbreviated_option_is_refused_and_the_whole_one_is_named(option, capsys):
    parser, action = OPTIONS[option]
    short = shortened(action)
    err = refusal(parser, [short, "1"], capsys)
    assert f"unknown option {short}: did you mean '" in err and "usage:" not in err


WRONG = {
    "option with a value": (
        cli,
        "demo --roudns=4",
        "edgefl demo: error: unknown option --roudns: did you mean",
    ),
    "before what is missing": (cli, "inspect --jsn", "unknown option --jsn: did you mean '--json'?"),
    "one dash": (cli, "demo -devices 4", "unknown option -devices: did you mean '--devices'?"),
    "of no likeness": (aggregator, "--xyz", "unknown option --xyz: known: --check, --config, --debug, "),
    "value": (agent, "--config f --log-level wrning", "--log-level: unknown value 'wrning': did you mean 'warning'?"),
    "command": (cli, "inspekt --json", "unknown command 'inspekt': did you mean 'inspect'?"),
    "the program's": (cli, "--vers demo", "edgefl: error: unknown option --vers: did you mean '--version'?"),
    "one word too many": (cli, "inspect a b", "edgefl inspect: error: unexpected word 'b'"),
    "a command's word": (cli, "demo --rounds 1e3", "argument --rounds: '1e3' is not a whole number"),
    "nothing": (cli, "", "the following arguments are required: COMMAND"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_words_get_the_nearest_right_one(case, capsys):
    module, words, message = WRONG[case]
    err = refusal(module.make_parser(), words.split(), capsys)
    assert message in err
    assert re.search(r"^\S+( \w+)? --help lists the options$", err, re.MULTILINE)


def test_numbers_dashes_and_texts_are_no_options():
    parser = Parser(prog="p")
    parser.add_argument("--by", type=float)
    parser.add_argument("word", nargs="*")
    options = parser.parse_args(["--by", "-3.5", "-", "-2", "-a b", "--", "--not-an-option"])
    assert options.by == -3.5 and options.word == ["-", "-2", "-a b", "--not-an-option"]


# ---- completion and python -m


def completions(program: str, *words: str) -> set[str]:
    """What bash offers for the last of `words`, which may be empty, after the program's name."""
    module = "edgefl.cli.main" if program == "edgefl" else MAINS[program].__name__
    code = f"from {module} import main; main(['--print-completion', 'bash'])"
    script = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    (function,) = re.findall(rf"^complete .*-F (\w+) {program}$", script, re.MULTILINE)
    quoted = " ".join(f"'{word}'" for word in (program, *words))
    ask = f'COMP_WORDS=({quoted}); COMP_CWORD={len(words)}; {function}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", script + "\n" + ask], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes_commands_options_and_values():
    pytest.importorskip("shtab")
    assert completions("edgefl", "") >= set(cli.COMMANDS)
    assert completions("edgefl", "demo", "--dev") == {"--devices"}
    assert completions("edgefl-agent", "--log-level", "w") == {"warning"}
    assert completions("edgefl-aggregator", "--take") == {"--take-over"}


def test_completion_without_its_library_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    err = refusal(agent.make_parser(), ["--print-completion", "bash"], capsys)
    assert "pip install 'edgefl-toolkit[completion]'" in err


@pytest.mark.parametrize("module", ["edgefl", "edgefl_agent", "edgefl_broker"])
def test_python_m_is_the_program(module):
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"edgefl {edgefl.__version__}\n"


def test_python_m_keeps_the_exit_code():
    done = subprocess.run([sys.executable, "-m", "edgefl", "inspect", "nope.onnx"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: can't read nope.onnx")


# ---- log lines


@pytest.fixture
def record() -> logging.LogRecord:
    """A message with an exception, logged on 2026-03-01 at 08:15:02.12 UTC."""
    try:
        raise ValueError("inside")
    except ValueError:
        out = logging.LogRecord("edgefl.agent", logging.WARNING, "", 1, "round %d, \n%s", (7, "é"), sys.exc_info())
    out.created = 1772352902.12
    return out


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import time

    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


def test_a_text_line_is_dated_with_its_offset(record, berlin):
    first = TextLines().format(record).splitlines()[0]
    assert first == "2026-03-01T09:15:02.120+01:00 WARNING round 7, "


def test_a_json_line_is_one_line(record, berlin):
    line = JsonLines().format(record)
    assert "\n" not in line
    found = json.loads(line)
    assert found.pop("traceback").splitlines()[-1] == "ValueError: inside"
    assert found == {
        "time": "2026-03-01T09:15:02.120+01:00",
        "level": "warning",
        "logger": "edgefl.agent",
        "message": "round 7, \né",
    }


def daemon_log(tmp_path, form: str) -> list[str]:
    """Lines of an agent that can't reach its broker and stops at SIGTERM."""
    config = tmp_path / "agent.toml"
    config.write_text(
        'federation = "f"\ndevice_id = "d"\nstate_dir = "state"\n'
        '[mqtt]\nurl = "mqtt://127.0.0.1:1"\n[data]\nsource = "digits"\n'
    )
    command = [sys.executable, "-m", "edgefl_agent", "--config", str(config), "--log-format", form]
    with subprocess.Popen(command, cwd=tmp_path, env=os.environ, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "cannot reach MQTT broker" in line:  # it runs
                break
        process.terminate()
        lines += process.stderr.readlines()
    assert process.returncode == 0
    return lines


def test_a_daemon_writes_dated_lines(tmp_path):
    dates = [datetime.fromisoformat(line.split()[0]) for line in daemon_log(tmp_path, "text")]
    assert dates
    assert all(abs(datetime.now().astimezone() - date) < timedelta(minutes=5) for date in dates)


def test_a_daemon_writes_nothing_but_json(tmp_path):
    lines = [json.loads(line) for line in daemon_log(tmp_path, "json")]
    assert any("SIGTERM" in line["message"] for line in lines)
    assert all(line.keys() >= {"time", "level", "logger", "message"} for line in lines)


def test_the_lines_above_a_live_line_are_dated_too(monkeypatch):
    console = pytest.importorskip("rich.console").Console
    text = io.StringIO()
    monkeypatch.setattr("rich.console.Console", lambda stderr: console(file=text, width=200))
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", root.handlers[:])
    live = LiveLine()
    root.warning("[bold] is no markup here")
    live.close()
    (line,) = [line for line in text.getvalue().splitlines() if "WARNING" in line]
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d WARNING \[bold\] is no markup here", line)


def test_the_live_line_counts_down_to_the_next_round(monkeypatch):
    console = pytest.importorskip("rich.console").Console
    monkeypatch.setattr("rich.console.Console", lambda stderr: console(file=io.StringIO(), width=200))
    monkeypatch.setattr(logging.getLogger(), "handlers", logging.getLogger().handlers[:])
    live = LiveLine()
    try:
        for left_s, expected in ((42.4, ", the next round opens in 42 s"), (-5.0, ", the next round opens in 0 s")):
            opens_at = time.monotonic() + left_s
            live.show(Snapshot("waiting", 3, 2, 1, True, 4, opens_at=opens_at))
            assert str(live._status.status) == f"round 3 waiting, 4 devices present{expected}"
    finally:
        live.close()


def test_the_last_error_is_json_as_well(tmp_path):
    command = [sys.executable, "-m", "edgefl_agent", "--config", "nope.toml", "--log-format", "json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert json.loads(line)["level"] == "error" and "can't read nope.toml" in json.loads(line)["message"]


def test_the_replay_is_as_strict(capsys):
    with pytest.raises(SystemExit) as end:
        replay.main(["--conf", "f"])
    assert end.value.code == 2 and "unknown option --conf: did you mean '--config'?" in capsys.readouterr().err
