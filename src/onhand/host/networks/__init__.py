"""Networks that are no language models, on the host: from any framework to a smaller bundle."""
