"""What happened on this device, kept so that tampering shows."""
