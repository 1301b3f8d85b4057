"""Quantisation of networks: ranges, grids, the plan of what is quantised, and the graph made."""
