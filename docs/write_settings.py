"""Write docs/settings.md and the sample files from the declared settings: `python docs/write_settings.py`.

A test says when one of them is stale.
"""

import re
from pathlib import Path

from edgefl_agent.config import AgentConfig
from edgefl_broker.helper.config import HelperConfig

from edgefl.hosting.config import AggregatorConfig
from edgefl.settings import Settings
from edgefl.settings.render import reference, render
from edgefl.simulation.options import FleetOptions

PAGE = Path(__file__).with_name("settings.md")
COMMON = {"federation": "my-fleet", "url": "mqtts://broker.example.org:8883"}
AGGREGATOR = {
    "model": "/etc/edgefl-aggregator/start.onnx", "ca": "/etc/edgefl-aggregator/ca.crt",
    "cert": "/etc/edgefl-aggregator/aggregator.crt", "key": "/etc/edgefl-aggregator/aggregator.key",
}  # fmt: skip
AGENT = {
    "ca": "/etc/edgefl/ca.crt",
    "device_id": "pi-01", "cert": "/etc/edgefl/pi-01.crt", "key": "/etc/edgefl/pi-01.key",
    "source": "csv:/var/lib/edgefl/data.csv?target=weight", "pause_file": "/var/lib/edgefl/pause",
}  # fmt: skip
HELPER = {"name": "north", "dir": "/etc/edgefl-helper"}
SAMPLES = {
    "broker/aggregator.toml.sample": (AggregatorConfig, COMMON | AGGREGATOR),
    "broker/helper.toml.sample": (HelperConfig, COMMON | HELPER),
    "device_agent/agent.toml.sample": (AgentConfig, COMMON | AGENT),
}
HEAD = """# Settings

Made from the declarations in `edgefl/settings/` by `python docs/write_settings.py`: do not edit this page.

A setting has the same name, bounds and default wherever it is set; later places win:

| where | `train.lr` | `codec.name` |
|---|---|---|
| `aggregator.toml`, also for `edgefl simulate --config` | `[train]` `lr = 0.05` | `[codec]` `name = "ecq:step=2"` |
| `--set` of `edgefl simulate` and `edgefl-aggregator` | `--set train.lr=0.05` | `--set codec.name=ecq:step=2` |
| options of `edgefl simulate` | `--lr 0.05` | `--codec ecq:step=2` |
| `edgefl.simulate()` and `edgefl.Settings.replace()` | `lr=0.05` | `codec="ecq:step=2"` |

An option or an argument has the name of its key, but a key `name` goes by its section: `--codec`, `downlink=...`. A
strategy or a codec takes its options after a colon: `name:option=value,option=value`. `--set key=` with nothing behind
it removes an optional setting. `edgefl-aggregator --print-config` and `edgefl-agent --print-config` write sample files.

## The federation

In `aggregator.toml`, in simulations and in the API.

"""


def page() -> str:
    """The whole page."""
    parts = [
        HEAD + reference(Settings),
        "## A deployment's aggregator\n\nOnly in `aggregator.toml`; `--set` changes these too.\n",
        reference(AggregatorConfig, leave_out=Settings),
        "## A device\n\nIn `agent.toml`, and by `--set` of `edgefl-agent`.\n",
        reference(AgentConfig),
        "## A helper\n\nIn `helper.toml`, and by `--set` of `edgefl-helper` ([helper.md](helper.md)).\n",
        reference(HelperConfig),
        "## A simulated fleet\n\nOptions of `edgefl simulate` and arguments of `edgefl.simulate()`.\n",
        reference(FleetOptions),
    ]
    return "\n".join(parts).rstrip() + "\n"


def sample(schema: type, values: dict[str, str]) -> str:
    """A configuration with every key, in which these keys have values."""
    text = render(schema)
    for key, value in values.items():
        text, found = re.subn(rf"(?m)^# {key} = .*$", f'{key} = "{value}"', text, count=1)
        assert found == 1, f"{key} is not a key without a value"
    return text


def outputs() -> dict[Path, str]:
    """What is to stand in each file."""
    return {PAGE: page()} | {PAGE.parent.parent / path: sample(*made) for path, made in SAMPLES.items()}


if __name__ == "__main__":
    for path, text in outputs().items():
        path.write_text(text, encoding="utf-8")
