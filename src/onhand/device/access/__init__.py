"""Who may do what with a server: keys, what they reach, and how much of it."""
