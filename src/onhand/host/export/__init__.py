"""A compressed model in an engine's own form."""
