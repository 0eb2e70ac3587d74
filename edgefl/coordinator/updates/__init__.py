"""Updates as they arrive: what is read, what is refused, what is added to the round's sum."""
