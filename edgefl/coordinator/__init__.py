"""The rounds of a federation, decided without any I/O: when they open and close, whom they ask, what they sum."""
