"""The API: what requests may ask, and the form of what they get."""
