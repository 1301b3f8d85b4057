"""Benchmarks: long, beside peers, with raw results kept. Not run by the tests."""

import os

# They measure whatever bundle they made, in state folders of their own.
os.environ.setdefault("ONHAND_TRUST", "any")
