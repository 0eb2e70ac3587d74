"""Api: the routes of the dashboard's server. What they answer is edgefl.board's, and openapi.py describes it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from anyio import Semaphore, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from edgefl.board import page, views
from edgefl.board.openapi import openapi
from edgefl.board.rounds import KEPT, Curves, Rounds
from edgefl.errors import EdgeFLError
from edgefl.hosting.orders import Answer, Order, Pause, Release, Resume, Rollback

from .http_answers import answer, refusal

DOWNLOADS = 2  # models that are sent at a time: each is in memory
METRICS = "text/plain; version=0.0.4; charset=utf-8"
log = logging.getLogger("edgefl.dashboard")
VERBS: dict[str, Callable[[str], Order]] = {"pause": Pause, "resume": Resume, "release": Release}


class Source(Protocol):
    """What the routes ask the dashboard for. Each may take a moment: none is called on the server's own thread."""

    def overview(self) -> views.Overview | None: ...
    def devices(self, show: str, search: str, offset: int, limit: int) -> views.Devices: ...
    def device(self, name: str) -> views.Device | None: ...
    def rounds(self, before: int, limit: int) -> Rounds: ...
    def curves(self) -> Curves: ...
    def versions(self) -> views.Versions: ...
    def model(self, version: int) -> tuple[str, bytes] | None: ...
    def order(self, order: Order) -> Answer | None: ...
    def metrics(self) -> bytes: ...


def make_app(source: Source) -> Starlette:
    """The application, without its gatekeeper."""
    routes = _Routes(source)
    table: list[tuple[str, Callable[..., Any], list[str]]] = [
        ("/metrics", routes.metrics, ["GET"]),
        ("/api/openapi.json", routes.openapi, ["GET"]),
        ("/api/overview", routes.overview, ["GET"]),
        ("/api/devices", routes.devices, ["GET"]),
        ("/api/devices/{device}", routes.device, ["GET"]),
        ("/api/devices/{device}/{verb}", routes.act, ["POST"]),
        ("/api/rounds", routes.rounds, ["GET"]),
        ("/api/curves", routes.curves, ["GET"]),
        ("/api/versions", routes.versions, ["GET"]),
        ("/api/versions/{version:int}/model.onnx", routes.model, ["GET"]),
        ("/api/versions/{version:int}/rollback", routes.rollback, ["POST"]),
    ]
    made = [Route(path, call, methods=methods) for path, call, methods in table]
    made += [Route("/" if name == "page.html" else f"/{name}", _asset(name)) for name in page.ASSETS]
    handlers: dict[Any, Any] = {HTTPException: _on_http_error, EdgeFLError: _on_error, Exception: _on_fault}
    return Starlette(routes=made, exception_handlers=handlers)


class _Routes:
    """A method for each route."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._room = Semaphore(DOWNLOADS)

    async def overview(self, request: Request) -> Response:
        found = await to_thread.run_sync(self._source.overview)
        if found is None:
            return refusal(503, "the aggregator is starting, or evaluates a model: try again in a moment")
        return answer(request, found)

    async def devices(self, request: Request) -> Response:
        words = request.query_params
        show, search = words.get("show", "")[:32], words.get("search", "")[:64]
        offset, limit = _number(request, "offset", 0), _number(request, "limit", views.MOST_DEVICES)
        return answer(request, await to_thread.run_sync(self._source.devices, show, search, offset, limit))

    async def device(self, request: Request) -> Response:
        name = request.path_params["device"]
        found = await to_thread.run_sync(self._source.device, name)
        return refusal(404, f"there is no device {name!r}") if found is None else answer(request, found)

    async def rounds(self, request: Request) -> Response:
        before, limit = _number(request, "before", 0), _number(request, "limit", KEPT)
        return answer(request, await to_thread.run_sync(self._source.rounds, before, limit))

    async def curves(self, request: Request) -> Response:
        return answer(request, await to_thread.run_sync(self._source.curves))

    async def versions(self, request: Request) -> Response:
        return answer(request, await to_thread.run_sync(self._source.versions))

    async def model(self, request: Request) -> _Download:
        return _Download(self._source, request.path_params["version"], self._room)

    async def act(self, request: Request) -> Response:
        name, verb = request.path_params["device"], request.path_params["verb"]
        if verb not in VERBS:
            raise HTTPException(404)
        if await to_thread.run_sync(self._source.device, name) is None:
            return refusal(404, f"there is no device {name!r}")
        return await self._order(request, VERBS[verb](name))

    async def rollback(self, request: Request) -> Response:
        return await self._order(request, Rollback(request.path_params["version"]))

    async def _order(self, request: Request, order: Order) -> Response:
        said = await to_thread.run_sync(self._source.order, order)
        if said is None:
            return refusal(202, "the aggregator has the order, and has not answered yet")
        return answer(request, said) if said.done else refusal(409, said.text)

    async def metrics(self, request: Request) -> Response:
        return Response(await to_thread.run_sync(self._source.metrics), headers={"Content-Type": METRICS})

    async def openapi(self, request: Request) -> Response:
        return answer(request, openapi())


@dataclass(frozen=True)
class _Download:
    """A response that makes and sends a model while few others do."""

    source: Source
    version: int
    room: Semaphore

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self.room:
            found = await to_thread.run_sync(self.source.model, self.version)
            if found is None:
                response = refusal(404, f"version {self.version} is not kept")
            else:
                name, data = found
                headers = {"Content-Disposition": f'attachment; filename="{name}"'}
                response = Response(data, headers=headers, media_type="application/octet-stream")
            await response(scope, receive, send)


def _asset(name: str) -> Callable[..., Any]:
    """A route that sends one of the page's files; the package has them, so they are read once."""
    data, kind = page.asset(name), page.ASSETS[name]

    async def send(request: Request) -> Response:
        return Response(data, headers={"Content-Type": kind, "Cache-Control": "no-cache"})

    return send


def _number(request: Request, name: str, default: int) -> int:
    """A whole number of the query, from 0 to a million."""
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) <= 7):
        raise HTTPException(400, f"{name} is no number from 0 to a million")
    return min(int(text), 1_000_000)


async def _on_http_error(request: Request, error: HTTPException) -> Response:
    return refusal(error.status_code, str(error.detail).lower() if error.status_code != 400 else str(error.detail))


async def _on_error(request: Request, error: EdgeFLError) -> Response:
    return refusal(503, str(error))


async def _on_fault(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path[:120], exc_info=error)
    return refusal(500, "this failed: the aggregator's log says why")
