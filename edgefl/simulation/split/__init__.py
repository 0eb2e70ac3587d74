"""Which simulated device holds which examples."""
