"""One gRPC call to one address: a client of HTTP/2 that knows no Flow."""
