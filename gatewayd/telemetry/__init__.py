"""What is told of requests and of the gateway: to logs, metrics and traces."""
