"""The JSON form of requests, answers and documents, converted without document objects in between (pure)."""
