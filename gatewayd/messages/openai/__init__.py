"""
Requests and answers in the form of OpenAI's API, and the documents that they become (pure).

docs/guide/openai.md is the convention: what of a request becomes parameters and what a document, and what of
the answered documents becomes the completion.
"""
