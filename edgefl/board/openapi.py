"""OpenAPI: the description of `/api`, made from the structs that the routes answer with."""

from __future__ import annotations

from typing import Any

import msgspec

from .. import __version__
from . import rounds, views

_SCHEMA = "#/components/schemas/{name}"
# Method, path, what it does, what it answers with. A POST needs the token, and so does a model.
ROUTES: tuple[tuple[str, str, str, type | None], ...] = (
    (
        "get",
        "/api/overview",
        "The federation now: the open round, counts, devices that need attention.",
        views.Overview,
    ),
    ("get", "/api/devices", "A page of the fleet, devices that need attention first.", views.Devices),
    ("get", "/api/devices/{device}", "One device.", views.Device),
    ("post", "/api/devices/{device}/pause", "Rounds do not ask the device until it is resumed.", views.Answer),
    ("post", "/api/devices/{device}/resume", "Rounds may ask the device again.", views.Answer),
    ("post", "/api/devices/{device}/release", "End the device's quarantine, or its mute.", views.Answer),
    ("get", "/api/rounds", "The newest rounds that are over, newest first.", rounds.Rounds),
    ("get", "/api/curves", "All rounds, as columns for drawing.", rounds.Curves),
    ("get", "/api/versions", "The models that are kept, newest first.", views.Versions),
    ("get", "/api/versions/{version}/model.onnx", "The ONNX file of a version. Needs the token.", None),
    ("post", "/api/versions/{version}/rollback", "Commit this version's model again, as a new version.", views.Answer),
)
_QUERY = {
    "/api/devices": (
        ("show", "string", "attention, barred, paused, or a state; without it, all devices."),
        ("search", "string", "Part of a device's id."),
        ("offset", "integer", "Devices to leave out at the beginning."),
        ("limit", "integer", f"Most devices in the answer, at most {views.MOST_DEVICES}."),
    ),
    "/api/rounds": (
        ("before", "integer", "Only rounds before this one."),
        ("limit", "integer", f"Most rounds in the answer, at most {rounds.KEPT}."),
    ),
}  # fmt: skip


def openapi() -> dict[str, Any]:
    """The document, OpenAPI 3.1."""
    kinds = list(dict.fromkeys(kind for *_, kind in ROUTES if kind is not None))
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_SCHEMA)
    references = dict(zip(kinds, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for method, path, text, kind in ROUTES:
        paths.setdefault(path, {})[method] = _operation(method, path, text, references.get(kind) if kind else None)
    token = {"type": "http", "scheme": "bearer", "description": "dashboard.token in the aggregator's state_dir"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "EdgeFL dashboard", "version": __version__, "description": "See docs/dashboard.md."},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"token": token}},
    }


def _operation(method: str, path: str, text: str, answer: Any) -> dict[str, Any]:
    kind = "application/json" if answer else "application/octet-stream"
    refused = {"$ref": _SCHEMA.format(name="Answer")}
    made: dict[str, Any] = {
        "summary": text,
        "parameters": _parameters(path),
        "responses": {
            "200": {
                "description": "Done.",
                "content": {kind: {"schema": answer or {"type": "string", "format": "binary"}}},
            },
            "default": {"description": "Not done, and why.", "content": {"application/json": {"schema": refused}}},
        },
    }
    if method == "post" or not answer:
        made["security"] = [{"token": []}]
    return made


def _parameters(path: str) -> list[dict[str, Any]]:
    made = []
    for name, kind in (("device", "string"), ("version", "integer")):
        if f"{{{name}}}" in path:
            made.append({"name": name, "in": "path", "required": True, "schema": {"type": kind}})
    for name, kind, text in _QUERY.get(path, ()):
        made.append({"name": name, "in": "query", "description": text, "schema": {"type": kind}})
    return made
