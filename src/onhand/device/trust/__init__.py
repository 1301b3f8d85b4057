"""Whose bundles this device takes: its own key, keys that it was told to trust, releases seen."""
