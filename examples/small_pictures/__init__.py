"""A MobileNetV2 for pictures of 32 x 32 pixels: its data, its training and its export."""
