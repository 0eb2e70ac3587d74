"""The operator's keys of a federation, and the files made from them. Agent and aggregator never import this package."""
