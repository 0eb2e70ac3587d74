"""Answers of the dashboard's server: JSON of msgspec structs, with a tag so that what has not changed is not sent."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edgefl._core import crc32c
from edgefl.board.views import Answer


def answer(request: Request, data: object) -> Response:
    """`data` as JSON; nothing if the browser has it already."""
    raw = msgspec.json.encode(data)
    tag = f'"{crc32c(raw):08x}{len(raw):x}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(raw, headers=headers, media_type="application/json")


def refusal(status: int, text: str) -> Response:
    """Why something was not done."""
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return Response(msgspec.json.encode(Answer(False, text)), status, headers, "application/json")
