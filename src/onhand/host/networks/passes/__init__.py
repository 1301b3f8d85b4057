"""Passes over networks: each takes a graph and gives a smaller or a faster one."""
