"""What PyTorch alone has: its devices, its faster layers, traces."""
