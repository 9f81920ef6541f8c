"""What TensorFlow alone has: its devices, its faster layers."""
