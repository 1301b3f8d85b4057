"""The page at `/`: static files, and how they are sent."""
