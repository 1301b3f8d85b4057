"""Activations made easier to round: where their channels may be scaled, and by how much."""
