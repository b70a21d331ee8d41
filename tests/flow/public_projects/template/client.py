from gatewayd import Client, DocumentArray

if __name__ == "__main__":
    client = Client(host="grpc://0.0.0.0:54321")
    docs = client.post("/", DocumentArray.empty(2))
    print(docs.texts)  # noqa: T201
