"""The JSON form of requests, answers and documents, made with no document objects in between (pure)."""
