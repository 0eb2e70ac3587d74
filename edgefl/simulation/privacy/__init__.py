"""What an epsilon asks of rounds, and what it leaves of the accuracy: `edgefl privacy`."""
