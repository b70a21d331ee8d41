"""gRPC: the port, its services and their methods."""
