"""Many builds at once, on this machine or on a cluster, with the same results."""
