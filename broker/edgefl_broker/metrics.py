"""Metrics: what Prometheus may scrape of an aggregator, at /metrics of its dashboard.

No label has the name of a device: how many series there are does not depend on the fleet. Counters go on after a
restart, since they are the sums of the rounds in history.jsonl; no counter is served before it has been read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from edgefl.board.rounds import BUCKETS_S, Past, Round, Totals
from edgefl.protocol.fleet import Summary

from .history_view import HistoryView

STATES = ("ready", "training", "paused", "trouble", "disconnected", "lost", "absent")  # others are counted as "other"
PHASES = ("waiting", "open", "unmasking", "evaluating", "judging", "done", "stopped")
OUTCOMES = ("committed", "abandoned", "evaluated", "refused", "rollback")


class FederationCollector(Collector):
    """`summary` returns the newest one, if there is any; `online` whether the aggregator is connected."""

    def __init__(self, summary: Callable[[], Summary | None], history: HistoryView, online: Callable[[], bool]) -> None:
        self._summary, self._history, self._online = summary, history, online

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield _gauge("broker_connected", "1 while the aggregator is connected to the MQTT broker.", self._online())
        summary = self._summary()
        if summary is not None:
            yield from _now(summary)
        if self._history.is_whole:  # a counter that is still rising to where it was would be taken for news
            yield from self._history.look(lambda past: [*_scores(past), *_sums(past.totals)])


def make_metrics(
    summary: Callable[[], Summary | None], history: HistoryView, online: Callable[[], bool]
) -> Callable[[], bytes]:
    """A function that returns all metrics in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FederationCollector(summary, history, online))
    ProcessCollector(registry=registry)
    return lambda: generate_latest(registry)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"edgefl_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"edgefl_{name}", text, value=value)


def _now(summary: Summary) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "edgefl_info", "The federation and the aggregator's version.", labels=["federation", "version"]
    )
    info.add_metric([summary.federation, summary.edgefl], 1)
    yield info
    yield _gauge(
        "view_timestamp_seconds", "When the aggregator last described itself; 0: its clock is not set.", summary.at
    )
    phase = GaugeMetricFamily("edgefl_phase", "1 for what the aggregator does now, 0 for all else.", labels=["phase"])
    for name in PHASES:
        phase.add_metric([name], summary.phase == name)
    yield phase
    yield _gauge("round", "Number of the open round, or of the next one.", summary.round)
    yield _gauge("model_version", "Newest version of the model.", summary.version)
    yield from _fleet(summary)
    yield from _open_round(summary)


def _fleet(summary: Summary) -> Iterator[Metric]:
    devices = GaugeMetricFamily("edgefl_devices", "Devices by the state that they are in.", labels=["state"])
    for name in STATES:
        devices.add_metric([name], summary.states.get(name, 0))
    devices.add_metric(["other"], sum(n for state, n in summary.states.items() if state not in STATES))
    yield devices
    yield _gauge("devices_present", "Devices that can be asked.", summary.present)
    yield _gauge("devices_barred", "Devices in quarantine or muted.", summary.barred)
    yield _gauge("devices_paused", "Devices that an operator has paused.", summary.paused)
    yield _gauge(
        "advice",
        "Pieces of advice for the operator, which the dashboard and `edgefl status` show.",
        len(summary.advice),
    )


def _open_round(summary: Summary) -> Iterator[Metric]:
    open_round = summary.open
    yield _gauge(
        "open_round_reports", "Devices that have counted in the open round.", open_round.counted if open_round else 0
    )
    yield _gauge(
        "open_round_waiting", "Devices that the open round waits for.", open_round.waiting if open_round else 0
    )
    yield _gauge(
        "open_round_received_bytes",
        "Bytes of updates that have arrived for it.",
        open_round.bytes_up if open_round else 0,
    )


def _scores(past: Past) -> Iterator[Metric]:
    """Only what is known: a series begins with the first score."""
    newest, rounds = past.newest, past.rounds(limit=1).rounds
    told: list[tuple[str, str, float | None]] = []
    if newest is not None:
        told += [
            ("model_accuracy_ratio", "The newest model's accuracy on the test set, 0 to 1.", newest.accuracy),
            ("model_loss", "The newest model's loss on the test set.", newest.loss),
        ]
    for last in rounds:
        told += [
            ("device_accuracy_ratio", "Accuracy on the examples that devices hold out, 0 to 1.", last.device_accuracy),
            ("device_loss", "Loss on the examples that devices hold out.", last.device_loss),
            *_personal(last),
            ("train_loss", "Mean loss of the devices' training in the last round.", last.train_loss),
            ("last_round_reports", "Devices that counted in the last round.", last.reported),
            ("last_round_timestamp_seconds", "When it closed; 0: the clock was not set.", last.closed_at),
        ]
    for name, text, value in told:
        if value is not None:
            yield _gauge(name, text, value)


def _personal(last: Round) -> list[tuple[str, str, float | None]]:
    """Of devices with a model of their own, in the last round; nothing where none told of one."""
    if not last.personal:
        return []
    return [
        ("personal_devices", "Devices that told of a model of their own in the last round.", last.personal),
        ("personal_own_devices", "Of these, devices that keep it and not the received one.", last.own),
        ("personal_accuracy_ratio", "Accuracy of the models that they keep, 0 to 1.", last.personal_accuracy),
        ("personal_loss", "Loss of the models that they keep.", last.personal_loss),
    ]


def _sums(totals: Totals) -> Iterator[Metric]:
    rounds = CounterMetricFamily("edgefl_rounds", "Rounds that are over, by their outcome.", labels=["outcome"])
    for name in OUTCOMES:
        rounds.add_metric([name], totals.rounds.get(name, 0))
    yield rounds
    yield _counter("reports", "Updates and evaluations that counted.", totals.reported)
    yield _counter("rejected_updates", "Updates that were refused as invalid.", totals.rejected)
    yield _counter("missed_reports", "Devices that a round asked, and that did not count in it.", totals.missed)
    yield _counter("examples", "Examples behind all updates that counted.", totals.examples)
    yield _counter("received_bytes", "MQTT payload bytes of updates that arrived.", totals.bytes_up)
    yield _counter("sent_bytes", "MQTT payload bytes that reporting devices say they have received.", totals.bytes_down)
    buckets = [(str(bound), float(n)) for bound, n in zip(BUCKETS_S, totals.buckets, strict=True)]
    buckets.append(("+Inf", float(sum(totals.rounds.values()))))
    yield HistogramMetricFamily(
        "edgefl_round_duration_seconds",
        "How long rounds took, from opening to commit.",
        buckets=buckets,
        sum_value=totals.seconds,
    )
