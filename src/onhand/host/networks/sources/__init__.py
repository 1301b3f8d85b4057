"""Sources of networks, one module for each framework."""
