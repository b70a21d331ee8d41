"""The server's half of gRPC over HTTP/2: connections, calls, and the asyncio transport that carries them."""
