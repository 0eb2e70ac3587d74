"""Differential privacy of masked rounds: noise, what it costs, and the ledger of what was spent.

Not here: who adds the noise (the helper, or the aggregator without one), and what is masked (masking/).
"""
