"""Keys of what lies on the disk: where they come from, and one for each store."""
