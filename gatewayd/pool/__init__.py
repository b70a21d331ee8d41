"""How a request reaches a Deployment."""
