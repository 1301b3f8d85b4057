"""Learning without forgetting: what is added to plain training, chosen by name."""
