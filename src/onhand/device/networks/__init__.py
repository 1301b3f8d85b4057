"""Networks that are no language models, on the device: arrays, and what they mean."""
