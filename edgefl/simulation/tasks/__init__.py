"""Trainings as data, and what computes them."""
