"""TLS of ports and of calls: key pairs and how they are read, contexts of them, and who a client is."""
