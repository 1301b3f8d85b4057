"""Adjusts a server to what its device can give: readings in, settings out, once a second."""
