"""What a device has beside its processor, tried out and timed."""
