"""What runs before shipping: sources, passes, export, evidence."""
