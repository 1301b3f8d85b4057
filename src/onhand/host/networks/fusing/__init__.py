"""Rules that put several operators into one."""
