"""Replay memories under a budget of bytes: what is kept of what was learned from."""
