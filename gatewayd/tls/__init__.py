"""TLS of the gateway's ports: key pairs and how they are read, contexts of them, and who a client is."""
