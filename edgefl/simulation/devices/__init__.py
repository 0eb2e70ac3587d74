"""What simulated devices are like, and what goes wrong with them."""
