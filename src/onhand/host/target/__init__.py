"""Measuring on a board that is reached over SSH: copying there, running there, bringing back."""
