"""edgefl-agent: trains on data that stays on the device, and publishes updates over MQTT."""

from . import lean as lean
