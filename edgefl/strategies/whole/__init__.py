"""Whole strategies: those whose devices and aggregator each keep something that belongs together. One a file.

    scaffold   control variates: a device's own and their mean
    feddyn     dynamic regularization: a device's gradient and their mean
    fedcm      the momentum of all, in every local step
    mime_lite  the same, of gradients at the round's model, which devices send behind their deltas
    mifa       the last update of every device, kept on the device; their sum here

SCAFFOLD's c, FedDyn's h and MIFA's sum are means over N devices, `rounds.expect`, of which a round hears some. A device
that leaves for good leaves its share behind, and one that joins, or has lost its slot, begins with none. That moves the
model for a while, and the devices that are there move it back: their gradients are in the next shares. So what is kept
does not grow with the number of devices that ever were (tests/strategies/test_whole.py).
"""
