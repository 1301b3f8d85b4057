"""Other servers that answer: clouds and peers, and several backends as one."""
