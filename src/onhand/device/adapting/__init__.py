"""What runs a bundle quickest on this device: tried once, remembered, tried again on change."""
