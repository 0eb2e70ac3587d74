"""The fleet as the broker shows it: what `edgefl status` reads and prints. It needs no access to the aggregator."""
