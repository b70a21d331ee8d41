"""The paths of OpenAI's API, which lead to endpoints of the executors (docs/guide/openai.md)."""
