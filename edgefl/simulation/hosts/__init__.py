"""The machines of a simulated fleet, each in its host on one virtual clock."""
