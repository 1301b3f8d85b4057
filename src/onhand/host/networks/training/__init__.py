"""Training of graphs on the host: data, objectives, codes, and the loop that can be resumed."""
