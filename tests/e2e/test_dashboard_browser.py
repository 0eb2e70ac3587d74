"""The dashboard in a browser, over a running federation with keys on mosquitto."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from board_fixture import rows, summary
from brokers import eventually
from daemons import blobs
from keyed_fleet import KeyedFleet

from edgefl.board import views
from edgefl.cli.main import main
from edgefl.coordinator.coordinator import RoundCoordinator
from edgefl.hosting.dashboard import DashboardConfig
from edgefl.protocol.trouble import REMEDIES

pytest.importorskip("starlette", reason="pip install 'edgefl-toolkit[dashboard]'")
from edgefl_broker.dashboard import Dashboard
from edgefl_broker.window import View, Window

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
expect, Page, Browser = sync_api.expect, sync_api.Page, sync_api.Browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="apt-get install chromium")
GOOD = [f"pi-{i:02}" for i in range(1, 7)]
BROKEN, SILENT, NEVER = "pi-07", "pi-08", "pi-09"


class Watched:
    """A federation that runs, and the address of its dashboard."""

    def __init__(self, fleet: KeyedFleet) -> None:
        self.fleet = fleet
        fleet.enrol(*GOOD, BROKEN, SILENT, NEVER)
        x, y = blobs(200, seed=99)
        np.savez(fleet.folder / "test.npz", x_train=x[:1], y_train=y[:1], x_test=x, y_test=y)
        np.savez(fleet.folder / f"{BROKEN}.npz", x=x[:20, :3], y=y[:20])  # a column is missing
        self.aggregator = fleet.aggregator(
            "rounds.interval_s=1", "rounds.rounds=1000000", "dashboard.listen=127.0.0.1:0", "evaluate.holdout=0.2",
            f"evaluate.test_data=npz:{fleet.folder}/test.npz", "train.lr=0.02", "keep_models=5",
        )  # fmt: skip
        self.url = self.aggregator.host._watcher.url
        for name in (*GOOD, BROKEN):
            fleet.agent(name)
        silent = fleet.agent(SILENT)
        eventually(lambda: any(SILENT in record.devices for record in fleet.records()), 30)
        silent.die()
        self.token = (fleet.folder / "state" / "dashboard.token").read_text().strip()


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    before = os.environ.get("EDGEFL_TRUST_CLOCK")
    os.environ["EDGEFL_TRUST_CLOCK"] = "1"  # the machine of a test may have no time server
    try:
        with KeyedFleet(tmp_path_factory.mktemp("fleet"), guard=False) as fleet:
            yield Watched(fleet)
    finally:
        os.environ.pop("EDGEFL_TRUST_CLOCK") if before is None else None


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser, watched: Watched) -> Iterator[Page]:
    """The page, opened. Whatever the test does, it asks nobody else for anything, and no error is in its console."""
    made = browser.new_page(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    asked, errors = [], []
    made.on("request", lambda request: asked.append(request.url))
    made.on("pageerror", lambda error: errors.append(str(error)))
    made.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    made.goto(watched.url)
    expect(made.locator("#fleet tbody tr")).to_have_count(9)
    yield made
    made.close()
    assert [url for url in asked if not url.startswith((watched.url, "data:", "blob:"))] == []
    assert [text for text in errors if not re.search("401|ERR_CONNECTION_REFUSED", text)] == []


def row(page: Page, device: str) -> sync_api.Locator:
    return page.locator("#fleet tbody tr", has=page.get_by_role("rowheader", name=device, exact=True))


def newest(page: Page) -> int:
    """The number of the newest round in the table."""
    return int(page.locator("#past tbody tr th").first.inner_text().replace(",", ""))


def test_a_running_round_changes_table_and_curves(page: Page) -> None:
    expect(page).to_have_title(re.compile("EdgeFL"))
    before = newest(page)
    curves = {name: page.locator(f"#chart-{name} svg").inner_html() for name in ("accuracy", "loss", "bytes", "time")}
    headlines = set()
    until = time.monotonic() + 40
    while time.monotonic() < until and (newest(page) < before + 2 or len(headlines) < 2):
        headlines.add(page.locator("#headline").inner_text())
        time.sleep(0.2)
    assert newest(page) >= before + 2
    assert len(headlines) >= 2 and any(re.search(r"[Rr]ound \d+", text) for text in headlines)
    for name, old in curves.items():
        assert page.locator(f"#chart-{name} svg").inner_html() != old, name
    since = "|".join(str(number) for number in range(before + 1, newest(page) + 10))  # rounds go on meanwhile
    expect(row(page, GOOD[0])).to_contain_text(re.compile(rf"round ({since})\b"))


def test_each_device_that_does_not_take_part_says_why_and_what_to_do(page: Page) -> None:
    expect(row(page, GOOD[1])).to_contain_text(re.compile("ready|training"))
    expect(row(page, BROKEN)).to_contain_text("in trouble", timeout=30_000)  # between two tries, one in each round
    expect(row(page, BROKEN)).to_contain_text(REMEDIES["data"][1:], timeout=30_000)
    expect(row(page, SILENT)).to_contain_text("lost", timeout=30_000)
    expect(row(page, SILENT)).to_contain_text("ook at its power")
    expect(row(page, NEVER)).to_contain_text("never seen")
    attention = page.locator("#attention-list")
    for name in (BROKEN, SILENT, NEVER):
        expect(attention).to_contain_text(name)
    page.get_by_role("button", name="Needs attention").click()
    expect(page.locator("#fleet tbody tr")).to_have_count(3)
    page.keyboard.press("/")
    page.keyboard.type("pi-09")
    expect(page.locator("#fleet tbody tr")).to_have_count(1)


def test_a_model_that_is_downloaded_runs(page: Page, watched: Watched, tmp_path: Path) -> None:
    import onnxruntime

    with page.expect_download() as coming:
        page.get_by_role("button", name=re.compile("^Download version")).first.click()
        give_token(page, watched.token)
    path = tmp_path / coming.value.suggested_filename
    coming.value.save_as(path)
    assert re.fullmatch(r".+-v\d+\.onnx", path.name)
    session = onnxruntime.InferenceSession(str(path))
    x, y = blobs(200, seed=5)
    (scores,) = session.run(None, {session.get_inputs()[0].name: x})
    assert (scores.argmax(1) == y).mean() > 0.5


def test_a_device_is_paused_and_resumed(page: Page, watched: Watched) -> None:
    """Rounds go on without it, and with it again."""
    name = GOOD[2]
    row(page, name).get_by_role("button", name=f"Pause {name}").click()
    give_token(page, watched.token)
    expect(row(page, name)).to_contain_text("paused by you", timeout=15_000)
    number = watched.fleet.records()[-1].round
    eventually(lambda: watched.fleet.records()[-1].round >= number + 3, 30)
    assert not any(name in record.devices for record in watched.fleet.records() if record.round > number + 1)
    row(page, name).get_by_role("button", name=f"Resume {name}").click()
    expect(row(page, name)).to_contain_text(re.compile("ready|training"), timeout=15_000)
    eventually(lambda: name in watched.fleet.records()[-1].devices, 30)


def give_token(page: Page, token: str) -> None:
    expect(page.locator("#ask")).to_be_visible()
    page.locator("#token").fill(token)
    page.keyboard.press("Enter")


def test_a_wrong_token_does_nothing_and_is_asked_for_again(page: Page, watched: Watched) -> None:
    version = watched.aggregator.host.machine.version
    page.get_by_role("button", name=re.compile("^Roll back")).last.click()
    page.get_by_role("button", name="Roll back", exact=True).last.click()
    give_token(page, "wrong")
    expect(page.locator("#ask-title")).to_have_text("That token is not the aggregator's")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#toast")).to_contain_text("token")
    assert all(record.state != "rollback" for record in watched.fleet.records())
    assert watched.aggregator.host.machine.version >= version


def test_charts_can_be_read_by_keyboard_and_colours_be_chosen(page: Page) -> None:
    chart = page.locator("#chart-accuracy svg")
    chart.focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#readout")).to_contain_text(re.compile(r"Round \d+: test set [\d.]+ %"))
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.locator("#theme").click()
    page.locator("#theme").click()
    expect(page.locator("#theme")).to_have_text("Dark")
    assert page.evaluate(background) != light
    page.reload()
    expect(page.locator("#theme")).to_have_text("Dark")


def test_everything_that_can_be_used_has_a_name_and_can_be_reached_by_tab(page: Page) -> None:
    nameless = page.evaluate(
        "[...document.querySelectorAll('button, a, input')].filter(n => n.checkVisibility()"
        " && !(n.textContent.trim() || n.ariaLabel || n.labels?.length)).map(n => n.outerHTML)"
    )
    assert nameless == []
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert {"theme", "search", "Devices"} <= seen


@pytest.mark.parametrize("width", [320, 390, 768, 1280, 2200])
def test_no_screen_is_too_small_or_too_wide(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for name in ("Pause", "Download"):
        button = page.get_by_role("button", name=re.compile(f"^{name}")).last
        eventually(lambda button=button: (box := button.bounding_box()) and box["x"] + box["width"] <= width)


def test_a_page_that_needs_the_token_asks_once_and_says_so(browser: Browser, tmp_path: Path) -> None:
    window = Window(cast(RoundCoordinator, None))
    window._view = View(summary(), rows())
    config = DashboardConfig(listen="127.0.0.1:0", trusted_proxy=["127.0.0.1"])
    dashboard = Dashboard(config, tmp_path, window, lambda: True)
    dashboard.versions = lambda: views.Versions([])  # type: ignore[method-assign]
    dashboard.start()
    page = browser.new_page()
    try:
        page.goto(dashboard.url)
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("#headline")).to_have_text("The dashboard needs its token")
        page.wait_for_timeout(4500)  # two more looks
        expect(page.locator("#ask")).to_be_hidden()
        page.get_by_role("button", name="Enter the token").click()
        give_token(page, (tmp_path / "dashboard.token").read_text().strip())
        expect(page.locator("#headline")).to_have_text("Round 61 is open")
        expect(page.locator("#enter")).to_be_hidden()
    finally:
        page.close()
        dashboard.close()


def test_a_broker_that_is_gone_is_seen(page: Page, watched: Watched) -> None:
    watched.fleet.broker.stop()
    expect(page.locator("#headline")).to_have_text("No connection to the MQTT broker", timeout=15_000)
    expect(page.locator("#progress")).to_be_hidden()
    watched.fleet.broker.start()
    expect(page.locator("#headline")).not_to_have_text("No connection to the MQTT broker", timeout=30_000)


def test_a_report_opens_from_disk(browser: Browser, watched: Watched, tmp_path: Path) -> None:
    file, errors = tmp_path / "report.html", []
    assert main(["report", str(watched.fleet.folder / "state"), str(file)]) == 0
    page = browser.new_page()
    page.on("console", lambda line: errors.append(line.text))
    page.goto(file.as_uri())
    expect(page.locator("#headline")).to_have_text(re.compile(r"^\d+ rounds$"))
    expect(page.locator("#chart-accuracy path.a")).to_have_count(1)
    expect(row(page, GOOD[0])).to_contain_text("counted")
    page.get_by_role("button", name=re.compile("Missed|Counted")).first.click()
    assert page.locator("#fleet button").count() == 0 and errors == []
    page.close()


def test_an_aggregator_that_stops_is_seen(page: Page, watched: Watched) -> None:
    """Last in this file: the aggregator is gone afterwards."""
    watched.aggregator.stop()
    expect(page.locator("#live")).to_contain_text("No answer", timeout=15_000)
    expect(page.locator("#headline")).to_have_text("The aggregator does not answer", timeout=15_000)
    expect(page.locator("#progress")).to_be_hidden()
    expect(page.locator("#fleet tbody tr")).to_have_count(9)
