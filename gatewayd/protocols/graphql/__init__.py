"""GraphQL over HTTP: the schema, its limits, and the path."""
