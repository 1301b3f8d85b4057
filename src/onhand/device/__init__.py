"""What runs on the device: installs without torch, never imports `onhand.host`."""
