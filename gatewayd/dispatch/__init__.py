"""What happens to one request: the walk through the Flow's Deployments, and what drives it."""
