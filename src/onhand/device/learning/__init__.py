"""Learning on the device: from examples to a new version that passed its gate."""
