"""Bundles on this device, as a server uses them."""
