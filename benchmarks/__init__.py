"""Benchmarks: long, beside peers, with raw results kept. Not run by the tests."""
