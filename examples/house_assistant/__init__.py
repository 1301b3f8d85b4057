"""A small assistant for a home: its grammar, its training, its model and its scores."""
