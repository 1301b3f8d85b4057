"""The search: what each part of a model is stored as, so that the whole holds a budget."""
