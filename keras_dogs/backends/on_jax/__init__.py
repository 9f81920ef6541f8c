"""What JAX alone has: its devices, its faster layers, its gradients."""
