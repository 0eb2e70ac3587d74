"""What a fleet will cost, before it is built: `edgefl plan-fleet`."""
