"""The nouns that host and device share: standard library and numpy only."""
