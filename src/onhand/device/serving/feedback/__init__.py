"""Feedback while serving: taken over HTTP, learned in idle time, and swapped in."""
