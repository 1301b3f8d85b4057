"""What is kept so that it need not be computed again."""
