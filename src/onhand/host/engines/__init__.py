"""Engines that need packages of the host: for machines with a graphics processor."""
