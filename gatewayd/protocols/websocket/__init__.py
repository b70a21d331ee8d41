"""WebSocket: one connection, many requests under way."""
