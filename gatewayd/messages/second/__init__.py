"""Documents of the second generation: docarray 0.30 and later (pure)."""
