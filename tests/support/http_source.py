"""What the dashboard's routes are tested with: a federation that does not move, and a memory of what was asked."""

from __future__ import annotations

from board_fixture import NOW, past, rows, summary
from edgefl_broker.history_view import HistoryView
from edgefl_broker.metrics import make_metrics

from edgefl.board import views
from edgefl.board.rounds import Curves, Rounds
from edgefl.hosting.orders import Answer, Order


class FixedSource:
    """`orders` are those that were given; `said` is the answer to each."""

    def __init__(self) -> None:
        self.rows, self.past = rows(), past()
        self.orders: list[Order] = []
        self.said: Answer | None = Answer(True, "done")
        self._history = HistoryView()
        self._history._past = self.past
        self.metrics = make_metrics(summary, self._history, lambda: True)

    def overview(self) -> views.Overview | None:
        return views.overview(summary(), NOW, self.past.newest, connected=True)

    def devices(self, show: str, search: str, offset: int, limit: int) -> views.Devices:
        return views.devices(self.rows, show=show, search=search, offset=offset, limit=limit)

    def device(self, name: str) -> views.Device | None:
        return views.find(self.rows, name)

    def rounds(self, before: int, limit: int) -> Rounds:
        return self.past.rounds(before, limit)

    def curves(self) -> Curves:
        return self.past.curves()

    def versions(self) -> views.Versions:
        return views.versions(range(49, 59), self.past.version)

    def model(self, version: int) -> tuple[str, bytes] | None:
        return (f"river-pumps-v{version}.onnx", b"onnx") if 49 <= version <= 58 else None

    def order(self, order: Order) -> Answer | None:
        self.orders.append(order)
        return self.said
