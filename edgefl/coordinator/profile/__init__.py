"""Rounds in which devices tell of their columns."""
