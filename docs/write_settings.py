"""Write docs/settings.md from the declared settings: `python docs/write_settings.py`. A test says when it is stale."""

from pathlib import Path

from edgefl_agent.config import AgentConfig

from edgefl.hosting.config import AggregatorConfig
from edgefl.settings import Settings
from edgefl.settings.render import reference
from edgefl.simulation.options import FleetOptions

PAGE = Path(__file__).with_name("settings.md")
HEAD = """# Settings

Made from the declarations in `edgefl/settings/sections.py` by `python docs/write_settings.py`: do not edit this page.

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
        "## A simulated fleet\n\nOptions of `edgefl simulate` and arguments of `edgefl.simulate()`.\n",
        reference(FleetOptions),
    ]
    return "\n".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
