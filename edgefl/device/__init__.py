"""A device's part in the rounds, decided without any I/O; training.py and holdout.py do the work of a round."""
