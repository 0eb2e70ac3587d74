"""Write docs/images/dashboard-*.png: a federation of 24 devices runs, and a browser looks at its dashboard.

`PYTHONPATH=tests:tests/support python docs/write_pictures.py`; it needs mosquitto and chromium,
and takes two minutes.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from daemons import blobs
from edgefl_agent.worker import Worker
from edgefl_broker.store import AggregatorStore
from keyed_fleet import KeyedFleet
from playwright.sync_api import Browser, Page, sync_playwright

from edgefl.coordinator.devices.quarantine import Suspect
from edgefl.hosting.orders import Pause, give

IMAGES = Path(__file__).with_name("images")
DEVICES = [f"pi-{i:02}" for i in range(1, 25)]
BROKEN, BARRED, SILENT, NEVER, PAUSED = "pi-05", "pi-08", "pi-11", "pi-17", "pi-21"
SIZES = {"": (1280, 1000), "-phone": (390, 844)}
slow_s = 0.0  # how long the slowest device takes to train


def train_like_a_pi(train):
    def slowly(self, *arguments):
        time.sleep(slow_s * random.random())
        return train(self, *arguments)

    return slowly


def start(fleet: KeyedFleet) -> str:
    """Start the federation; returns the address of its dashboard."""
    fleet.enrol(*DEVICES)
    x, y = blobs(400, seed=99)
    np.savez(
        fleet.folder / "test.npz", x_train=x[:1], y_train=y[:1], x_test=x + np.random.normal(0, 1.2, x.shape), y_test=y
    )
    np.savez(fleet.folder / f"{BROKEN}.npz", x=x[:90, :3], y=y[:90])
    (fleet.folder / "state").mkdir()
    store = AggregatorStore(fleet.folder / "state")
    store.save_suspects({BARRED: Suspect([1, 2, 3], "finite", 1, 2**40)})
    store.close()
    aggregator = fleet.aggregator(
        "rounds.interval_s=1", "rounds.rounds=1000000", "rounds.deadline_s=30", "dashboard.listen=127.0.0.1:0",
        f"evaluate.test_data=npz:{fleet.folder}/test.npz", "evaluate.holdout=0.2", "train.lr=0.004", "train.epochs=1",
    )  # fmt: skip
    agents = {name: fleet.agent(name) for name in DEVICES if name != NEVER}
    while not any(SILENT in record.devices for record in fleet.records()):
        time.sleep(0.2)
    agents[SILENT].die()
    give(fleet.folder / "state", Pause(PAUSED, "its sensor is being replaced"))
    return str(aggregator.host._watcher.url)


def shoot(browser: Browser, url: str, theme: str, size: str) -> None:
    width, height = SIZES[size]
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
    page.goto(url)
    wait_for_half(page)
    page.screenshot(path=IMAGES / f"dashboard-{theme}{size}.png")
    if theme == "light":
        page.locator("#devices").evaluate("node => node.scrollIntoView({behavior: 'instant'})")
        page.screenshot(path=IMAGES / f"dashboard-devices{size}.png")
    page.close()


def wait_for_half(page: Page) -> None:
    """Wait for a moment at which about half of the devices of an open round have reported."""
    share = "(n => !n.hidden && n.ariaValueNow / n.ariaValueMax)(document.getElementById('progress'))"
    until = time.monotonic() + 60
    while not 0.35 < float(page.evaluate(share) or 0) < 0.75 and time.monotonic() < until:
        time.sleep(0.05)


def main() -> None:
    global slow_s
    os.environ["EDGEFL_TRUST_CLOCK"] = "1"
    Worker._train = train_like_a_pi(Worker._train)  # type: ignore[method-assign]
    IMAGES.mkdir(exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with tempfile.TemporaryDirectory() as folder, KeyedFleet(Path(folder), guard=False, name="river-pumps") as fleet:
        url = start(fleet)
        fleet.wait(40, 300)
        slow_s = 9.0
        fleet.wait(len(fleet.records()) + 2, 120)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            for theme in ("light", "dark"):
                for size in SIZES:
                    shoot(browser, url, theme, size)
            browser.close()


if __name__ == "__main__":
    main()
