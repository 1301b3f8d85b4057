"""What is personal in a text, and how it is kept on the device while the rest leaves."""
