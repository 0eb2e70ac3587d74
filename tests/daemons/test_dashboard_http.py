"""The dashboard's routes and its gatekeeper, without a federation."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import msgspec
import pytest
from conftest import ROOT
from http_source import FixedSource

pytest.importorskip("starlette", reason="pip install 'edgefl-toolkit[dashboard]'")
from edgefl_broker.api import VERBS, make_app
from edgefl_broker.gatekeeper import BODY_BYTES, HEADERS, Gatekeeper, token_of
from starlette.testclient import TestClient

from edgefl.board import openapi, views
from edgefl.errors import UsageError
from edgefl.hosting.dashboard import DashboardConfig
from edgefl.hosting.orders import Answer, Pause, Release, Resume, Rollback

TOKEN = "a-token-of-43-characters-as-the-aggregator-has"
LOCAL = DashboardConfig(listen="127.0.0.1:8090")
BEARER = {"Authorization": f"Bearer {TOKEN}"}
JSON = {"Content-Type": "application/json"}
PAUSE = "/api/devices/pi-01/pause"


@pytest.fixture
def source() -> FixedSource:
    return FixedSource()


def client(source: FixedSource, config: DashboardConfig = LOCAL, **more) -> TestClient:
    app = Gatekeeper(make_app(source), config, TOKEN)
    return TestClient(app, base_url="http://127.0.0.1:8090", **{"client": ("127.0.0.1", 5), **more})


# ---- what there is to read


def test_every_documented_route_answers_with_the_struct_that_it_promises(source):
    http = client(source)
    kinds = {path: kind for method, path, _, kind in openapi.ROUTES if method == "get" and kind is not None}
    for path, kind in kinds.items():
        got = http.get(path.format(device="pi-07", version=58))
        assert got.status_code == 200, path
        msgspec.json.decode(got.content, type=kind, strict=True)
    assert http.get("/api/versions/58/model.onnx", headers=BEARER).content == b"onnx"


def test_every_route_is_documented(source):
    routes = {re.sub(r":\w+", "", r.path) for r in make_app(source).routes}
    documented = {path for _, path, *_ in openapi.ROUTES}
    documented |= {"/", "/board.css", "/board.js", "/metrics", "/api/openapi.json"}
    verbs = {f"/api/devices/{{device}}/{verb}" for verb in VERBS}
    assert routes - {"/api/devices/{device}/{verb}"} == documented - verbs


def test_the_page_of_the_documentation_has_every_route():
    told = set(re.findall(r"^\| `(GET|POST) ([^`]+)` \|", (ROOT / "docs" / "dashboard.md").read_text(), re.MULTILINE))
    assert told == {(method.upper(), path) for method, path, *_ in openapi.ROUTES}


def test_the_description_is_whole(source):
    made = client(source).get("/api/openapi.json").json()
    text = json.dumps(made)
    for name in re.findall(r'"#/components/schemas/(\w+)"', text):
        assert name in made["components"]["schemas"]
    assert made["components"]["schemas"]["Device"]["properties"]["remedy"] == {"type": "string", "default": ""}
    assert made["paths"][PAUSE.replace("pi-01", "{device}")]["post"]["security"] == [{"token": []}]


def test_what_has_not_changed_is_not_sent_again(source):
    http = client(source)
    first = http.get("/api/curves")
    again = http.get("/api/curves", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_search_and_a_page(source):
    seen = (
        client(source).get("/api/devices", params={"show": "ready", "search": "pi-0", "limit": 3, "offset": 1}).json()
    )
    assert (len(seen["devices"]), seen["matching"], seen["devices"][0]["id"]) == (3, 7, "pi-02")


@pytest.mark.parametrize("query", ["offset=-1", "offset=x", "limit=1e9", "limit=99999999", "offset=٣"])
def test_a_number_that_is_none_is_refused(source, query):
    got = client(source).get(f"/api/devices?{query}")
    assert got.status_code == 400 and "no number" in got.json()["text"]


def test_an_aggregator_that_is_busy_is_said(source):
    source.overview = lambda: None
    assert client(source).get("/api/overview").status_code == 503


@pytest.mark.parametrize(
    "path", ["/nothing", "/api/devices/nobody", "/../aggregator.toml", "/assets/page.html", "/dashboard.token"]
)
def test_nothing_else_is_served(source, path):
    got = client(source).get(path)
    assert got.status_code == 404 and got.json()["done"] is False


# ---- actions


@pytest.mark.parametrize(
    ("path", "order"),
    [
        (PAUSE, Pause("pi-01")),
        ("/api/devices/pi-01/resume", Resume("pi-01")),
        ("/api/devices/pi-12/release", Release("pi-12")),
        ("/api/versions/55/rollback", Rollback(55)),
    ],
)
def test_an_action_is_an_order(source, path, order):
    got = client(source).post(path, headers={**BEARER, **JSON}, content="{}")
    assert (got.status_code, got.json(), source.orders) == (200, {"done": True, "text": "done"}, [order])


@pytest.mark.parametrize(("said", "status"), [(Answer(False, "not so"), 409), (None, 202)])
def test_an_action_that_is_not_done_says_why(source, said, status):
    source.said = said
    got = client(source).post(PAUSE, headers={**BEARER, **JSON})
    assert got.status_code == status and got.json()["done"] is False and got.json()["text"]


def test_an_order_for_a_device_that_there_is_not_is_not_given(source):
    got = client(source).post("/api/devices/nobody/pause", headers={**BEARER, **JSON})
    assert (got.status_code, source.orders) == (404, [])
    assert client(source).post("/api/devices/pi-01/destroy", headers={**BEARER, **JSON}).status_code == 404


# ---- the gatekeeper


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer ä"]
)
@pytest.mark.parametrize("path", [PAUSE, "/api/versions/55/rollback", "/api/versions/58/model.onnx"])
def test_without_the_token_nothing_is_done_and_no_model_is_given(source, path, given):
    method = "GET" if path.endswith("onnx") else "POST"
    got = client(source).request(method, path, headers={**JSON, "Authorization": given.encode()})
    assert (got.status_code, got.headers["www-authenticate"], source.orders) == (401, "Bearer", [])
    assert TOKEN not in got.text


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8090", "", "[", "evil.example:8090"]
)
@pytest.mark.parametrize("path", ["/", "/api/overview", "/metrics"])
def test_a_name_that_is_rebound_to_us_is_refused(source, path, host):
    assert client(source).get(path, headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost:8090", "127.0.0.1:8090", "[::1]:8090", "192.168.1.4", "Fleet.example.org"])
def test_our_own_names_are_served(source, host):
    config = DashboardConfig(listen="127.0.0.1:8090", hosts=["fleet.example.org"])
    assert client(source, config).get("/api/overview", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://[x"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_page_of_another_site_is_refused_even_with_the_token(source, headers):
    http = client(source)
    assert http.post(PAUSE, headers={**BEARER, **JSON, **headers}).status_code == 403
    assert http.get("/api/devices", headers=headers).status_code == 403
    assert not source.orders


def test_a_page_of_ours_and_a_link_to_us_are_served(source):
    http = client(source)
    ours = {"Origin": "http://127.0.0.1:8090", "Sec-Fetch-Site": "same-origin"}
    assert http.post(PAUSE, headers={**BEARER, **JSON, **ours}).status_code == 200
    assert http.get("/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}).status_code == 200


def test_a_form_cannot_give_an_order(source):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert client(source).post(PAUSE, headers={**BEARER, "Content-Type": kind}).status_code == 415
    assert not source.orders


def test_a_long_body_is_refused(source):
    got = client(source).post(PAUSE, headers={**BEARER, **JSON}, content=b"x" * (BODY_BYTES + 1))
    assert got.status_code == 413


def test_behind_a_proxy_reading_needs_the_token_and_only_the_proxy_may_connect(source):
    config = DashboardConfig(listen="0.0.0.0:8090", trusted_proxy=["10.0.0.5"], hosts=["fleet.example.org"])
    http = client(source, config, client=("10.0.0.5", 40000))
    assert http.get("/").status_code == 200  # the page asks for it
    for path in ("/api/overview", "/api/devices", "/metrics", "/api/openapi.json"):
        assert http.get(path).status_code == 401
        assert http.get(path, headers=BEARER).status_code == 200
    assert client(source, config, client=("10.0.0.6", 40000)).get("/", headers=BEARER).status_code == 403
    both = DashboardConfig(listen="[::]:8090", trusted_proxy=["10.0.0.5", "FD00::0:1"], hosts=["fleet.example.org"])
    for peer, status in (("::ffff:10.0.0.5", 200), ("fd00::1", 200), ("::ffff:10.0.0.6", 403), ("testclient", 403)):
        assert client(source, both, client=(peer, 40000)).get("/").status_code == status


def test_every_answer_has_the_headers_that_keep_a_browser_in_check(source):
    http = client(source)
    for path in ("/", "/board.js", "/api/overview", "/metrics", "/nothing"):
        got = http.get(path)
        assert {name: got.headers.get(name) for name in HEADERS} == HEADERS
    assert http.get("/api/versions/58/model.onnx", headers=BEARER).headers["cache-control"] == "no-store"
    assert "unsafe" not in HEADERS["Content-Security-Policy"]


# ---- the token's file, and where it may listen


def test_the_token_is_made_once_and_is_private(tmp_path: Path):
    token = token_of(tmp_path)
    assert len(token) >= 43 and token_of(tmp_path) == token
    path = tmp_path / "dashboard.token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    with pytest.raises(UsageError, match="read by other users"):
        token_of(tmp_path)


@pytest.mark.parametrize("listen", ["0.0.0.0:8090", "[::]:8090", "192.168.1.4:80"])
def test_it_listens_elsewhere_with_tls_or_behind_a_proxy_alone(listen, tmp_path):
    with pytest.raises(UsageError, match="in the clear"):
        DashboardConfig(listen=listen).check()
    DashboardConfig(listen=listen, trusted_proxy=["192.168.1.1"]).check()
    (tmp_path / "crt").write_text("")
    (tmp_path / "key").touch(0o600)
    DashboardConfig(listen=listen, cert=f"{tmp_path}/crt", key=f"{tmp_path}/key").check()


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"listen": "8090"}, "an address and a port"),
        ({"listen": "example.org:80"}, "an address and a port"),
        ({"listen": "127.0.0.1:99999"}, "an address and a port"),
        ({"listen": "127.0.0.1:80", "cert": "x"}, "needs both"),
        ({"listen": "127.0.0.1:80", "trusted_proxy": ["proxy"]}, "no address"),
        ({"listen": "127.0.0.1:80", "cert": "/nothing", "key": "/nothing"}, "can't read"),
    ],
)
def test_settings_that_can_not_work_are_refused(fields, part):
    with pytest.raises(UsageError, match=part):
        DashboardConfig(**fields).check()


@pytest.mark.parametrize(
    ("listen", "private"), [("127.0.0.1:1", True), ("localhost:1", True), ("[::1]:1", True), ("0.0.0.0:1", False)]
)
def test_only_the_loopback_is_private(listen, private):
    assert DashboardConfig(listen=listen).is_private is private
    assert not DashboardConfig(listen=listen, trusted_proxy=["127.0.0.1"]).is_private


def test_a_version_in_use_is_marked(source):
    seen = msgspec.json.decode(client(source).get("/api/versions").content, type=views.Versions)
    assert [v.version for v in seen.versions if v.current] == [58]
