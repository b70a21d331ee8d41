"""Where OpenAI's clients look for its API, below the base URL ``http://host:port/v1``."""

from typing import Final

ALL: Final = b"/v1/"

CHAT: Final = "/v1/chat/completions"
EMBEDDINGS: Final = "/v1/embeddings"
MODELS: Final = "/v1/models"
