"""The compiled core for Python: plans, training, exact sums, and the vectors of params that they work on."""
