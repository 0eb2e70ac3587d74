"""edgefl-aggregator: runs next to an MQTT broker and averages whichever devices report."""
