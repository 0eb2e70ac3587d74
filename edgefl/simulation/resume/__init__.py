"""What a run that was stopped goes on from."""
