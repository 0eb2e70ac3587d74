"""Masked rounds: what they fix, and what the helpers are asked and answer."""
