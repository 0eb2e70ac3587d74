"""/metrics, the Grafana board and the alert rules: what they name exists, and Prometheus' own tool finds no fault."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from board_fixture import records, summary
from conftest import ROOT

pytest.importorskip("prometheus_client", reason="pip install 'edgefl-toolkit[dashboard]'")
from edgefl_broker.history_view import HistoryView
from edgefl_broker.metrics import make_metrics
from prometheus_client.parser import text_string_to_metric_families

from edgefl.history_record import RoundRecord
from edgefl.protocol.fleet import Summary

GRAFANA = ROOT / "broker" / "grafana"
FUNCTIONS = {"by", "changes", "histogram_quantile", "increase", "label_values", "max", "max_over_time", "on"}
FUNCTIONS |= {"and", "rate", "sum", "time"}
NEEDS_PROMTOOL = pytest.mark.skipif(shutil.which("promtool") is None, reason="apt-get install prometheus")


def scraped(of: Summary | None = None) -> str:
    history = HistoryView()
    history.read(records())
    return make_metrics(lambda: of or summary(), history, lambda: True)().decode()


def samples(text: str) -> dict[str, float]:
    """Each series and its value."""
    found = [s for family in text_string_to_metric_families(text) for s in family.samples]
    return {s.name + "".join(f"[{k}={v}]" for k, v in sorted(s.labels.items())): s.value for s in found}


def promtool(*arguments: str, text: str | None = None) -> None:
    done = subprocess.run(["promtool", *arguments], input=text, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout if "metrics" in arguments else "") == (0, ""), done.stdout + done.stderr


@NEEDS_PROMTOOL
def test_promtool_finds_no_fault_in_the_metrics():
    promtool("check", "metrics", text=scraped())


def test_metrics_say_what_is():
    seen = samples(scraped())
    assert seen["edgefl_round"] == 61 and seen["edgefl_model_version"] == 58
    assert seen["edgefl_rounds_total[outcome=committed]"] == 58 and seen["edgefl_rounds_total[outcome=abandoned]"] == 2
    assert (seen["edgefl_phase[phase=open]"], seen["edgefl_phase[phase=waiting]"]) == (1, 0)
    assert seen["edgefl_round_duration_seconds_bucket[le=+Inf]"] == seen["edgefl_round_duration_seconds_count"] == 60
    assert 0.9 < seen["edgefl_model_accuracy_ratio"] < 1
    assert seen["process_resident_memory_bytes"] > 1e6


def test_the_number_of_series_does_not_depend_on_the_fleet_nor_on_what_devices_say():
    many = {f"state-{i}": 1 for i in range(1000)} | {"ready": 5}
    text = scraped(Summary("f", "r", 0, "open", 1, 1, states=many, total=1005))
    assert "state-1" not in text and "pi-0" not in text
    assert set(samples(text)) == set(samples(scraped())) - {"edgefl_info[federation=river-pumps][version=0.1.0]"} | {
        "edgefl_info[federation=f][version=]"
    }
    assert samples(text)["edgefl_devices[state=other]"] == 1000
    assert len(samples(text)) < 100


def test_personal_scores_are_told_where_devices_have_models_of_their_own():
    last = records()[-1]
    seen = samples(scraped())
    assert seen["edgefl_personal_devices"] == last.personal > seen["edgefl_personal_own_devices"] == last.own > 0
    assert seen["edgefl_personal_accuracy_ratio"] == last.personal_accuracy
    history = HistoryView()
    history.read([RoundRecord(1, "committed", 1, 1, ["a"], 1, 0.1, 10, 10, 1.0)])
    plain = make_metrics(summary, history, lambda: True)().decode()
    assert "edgefl_train_loss" in plain and "edgefl_personal" not in plain


def test_before_the_first_round_there_is_no_score_and_no_error():
    history = HistoryView()
    history.read([])
    seen = samples(make_metrics(lambda: None, history, lambda: False)().decode())
    assert (
        seen["edgefl_reports_total"] == 0 and "edgefl_model_accuracy_ratio" not in seen and "edgefl_round" not in seen
    )


def test_no_counter_is_told_before_the_history_is_read():
    """Prometheus would take the rest of the history for what has happened since the restart."""
    history = HistoryView()
    scrape = make_metrics(summary, history, lambda: True)
    for record in records():
        seen = samples(scrape().decode())
        assert not [name for name in seen if name.startswith("edgefl_") and "_total" in name]
        assert "edgefl_round_duration_seconds_count" not in seen and seen["edgefl_round"] == 61
        history.add(record)
    history.read([])
    assert samples(scrape().decode())["edgefl_rounds_total[outcome=committed]"] == 58


def test_rounds_that_end_while_history_is_read_are_counted_once():
    """Whatever the order in which they come."""

    def one(number: int) -> RoundRecord:
        return RoundRecord(number, "committed", number, 1, ["a"], 1, 0.1, 10, 10, 1.0)

    def before():
        yield one(1)
        history.add(one(3))  # on the aggregator's thread
        yield one(2)
        yield one(3)

    history = HistoryView()
    history.read(before())
    history.add(one(4))
    assert history.look(lambda p: [r.round for r in p.rounds().rounds]) == [4, 3, 2, 1]


def test_the_page_of_the_documentation_has_every_metric_and_no_other():
    told = set(re.findall(r"`(edgefl_\w+)`", (ROOT / "docs" / "dashboard.md").read_text()))
    series = {re.sub(r"\[.*", "", name) for name in samples(scraped()) if name.startswith("edgefl_")}
    assert told == {re.sub(r"(round_duration_seconds)_(bucket|count|sum)$", r"\1", name) for name in series}


def queries() -> list[str]:
    """Every expression of the Grafana board."""
    board = json.loads((GRAFANA / "edgefl.json").read_text())
    made = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    made += [one["expr"] for one in board["annotations"]["list"]]
    return made + [v["definition"] for v in board["templating"]["list"] if v["type"] == "query"]


def names_in(expression: str) -> set[str]:
    """The metrics that an expression names."""
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\((?:[a-z]+, )*[a-z]+\) (?=\()|(?:by|on) \([a-z, ]*\)", " ", expression)
    return {word for word in re.findall(r"[a-z][a-z_]*[a-z]", bare)} - FUNCTIONS - {"job", "instance"}


@pytest.mark.parametrize("expression", queries())
def test_what_the_board_asks_for_exists(expression):
    known = {re.sub(r"\[.*", "", series) for series in samples(scraped())}
    named = names_in(expression)
    assert named and named <= known
    for label, values in re.findall(r'(\w+)="([^"]+)"', expression):
        assert f"[{label}={values}]" in "".join(samples(scraped()))


@NEEDS_PROMTOOL
def test_promtool_understands_every_query_of_the_board(tmp_path: Path):
    """As recording rules, with Grafana's variables filled in."""
    filled = [
        q.replace("$__rate_interval", "5m").replace("$job", "edgefl").replace("$instance", ".*") for q in queries()
    ]
    rules = [{"record": f"q:{i}", "expr": q} for i, q in enumerate(filled) if not q.startswith("label_values")]
    path = tmp_path / "rules.json"  # JSON is YAML
    path.write_text(json.dumps({"groups": [{"name": "board", "rules": rules}]}))
    assert len(rules) > 20
    promtool("check", "rules", str(path))


def test_the_boards_panels_neither_overlap_nor_leave_its_width():
    board = json.loads((GRAFANA / "edgefl.json").read_text())
    cells = [
        (x, y)
        for panel in board["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells) and max(x for x, _ in cells) == 23
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_what_the_alerts_ask_for_exists():
    known = {re.sub(r"\[.*", "", series) for series in samples(scraped())} | {"up"}
    text = (GRAFANA / "alerts.yml").read_text()
    expressions = re.findall(r"expr: (?:>-\n)?(.+?)\n        (?:for|labels)", text, re.DOTALL)
    assert len(expressions) == text.count("- alert:")
    for expression in expressions:
        assert names_in(expression) <= known, expression


BAD = {
    'edgefl_broker_connected{job="edgefl",instance="a"}': "0x300",
    'up{job="edgefl",instance="a"}': "0x300",
    'edgefl_rounds_total{job="edgefl",instance="a",outcome="committed"}': "5x300",
    'edgefl_rounds_total{job="edgefl",instance="a",outcome="abandoned"}': "0+1x300",
    'edgefl_rounds_total{job="edgefl",instance="a",outcome="refused"}': "0+1x300",
    'edgefl_phase{job="edgefl",instance="a",phase="done"}': "0x300",
    'edgefl_devices_present{job="edgefl",instance="a"}': "2x300",
    'edgefl_devices{job="edgefl",instance="a",state="ready"}': "2x300",
    'edgefl_devices{job="edgefl",instance="a",state="trouble"}': "3x300",
    'edgefl_devices_barred{job="edgefl",instance="a"}': "1x300",
    'edgefl_model_accuracy_ratio{job="edgefl",instance="a"}': "0.9x90 0.8x210",
}
GOOD = {
    **dict.fromkeys(BAD, "0x300"),
    'up{job="edgefl",instance="a"}': "1x300",
    'edgefl_broker_connected{job="edgefl",instance="a"}': "1x300",
    'edgefl_rounds_total{job="edgefl",instance="a",outcome="committed"}': "0+3x300",
    'edgefl_rounds_total{job="edgefl",instance="a",outcome="abandoned"}': "0+1x300",
    'edgefl_devices_present{job="edgefl",instance="a"}': "4x300",
    'edgefl_devices{job="edgefl",instance="a",state="ready"}': "5x300",
    'edgefl_model_accuracy_ratio{job="edgefl",instance="a"}': "0.9x90 0.88x210",
}


@NEEDS_PROMTOOL
@pytest.mark.parametrize("series", [BAD, GOOD], ids=["bad", "good"])
def test_every_alert_fires_where_all_is_bad_and_none_where_it_is_good(series, tmp_path: Path):
    promtool("check", "rules", str(GRAFANA / "alerts.yml"))
    alerts = re.findall(r"- alert: (\w+)", (GRAFANA / "alerts.yml").read_text())
    fired = "count by (alertname) (ALERTS{alertstate='firing'})"
    samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in alerts] if series is BAD else []
    test = {
        "interval": "5m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": fired, "eval_time": "10h", "exp_samples": samples}],
    }
    path = tmp_path / "test.json"
    path.write_text(
        json.dumps({"rule_files": [str(GRAFANA / "alerts.yml")], "evaluation_interval": "5m", "tests": [test]})
    )
    promtool("test", "rules", str(path))
