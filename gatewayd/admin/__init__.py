"""What operators see of a gateway, and what they do to it, on a port of its own."""
