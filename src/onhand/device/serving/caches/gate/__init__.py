"""Whether two questions ask the same, judged by their words."""
