"""Masked rounds: sums of updates of which nobody can open a single one. Devices, helpers and the aggregator's half of
the arithmetic; no I/O but the system's randomness for seeds.

    propose     params, clip, devices -> the numbers of the terms (protocol/terms.py)
    choice      which numbers of an update a round sends
    vector      delta -> integers, and their sum -> mean delta
    masks       a seed -> a mask
    ring        numbers modulo 2^m, packed
    sealed      a seed that only its helper can open, and what a device signs
    update      the payload of a masked update
    exchange    what the aggregator asks a helper, and what that answers
"""
