"""Which devices there are, which of them a round asks and waits for, and which are barred."""
