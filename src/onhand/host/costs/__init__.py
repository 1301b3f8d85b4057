"""What a compressed model will cost on a device, said from shapes: bytes, memory, time, energy."""
