from gatewayd import DocumentArray, Executor, requests


class Greeting(Executor):
    @requests
    def greet(self, docs: DocumentArray, **kwargs):
        docs[0].text = "good morning"
        docs[1].text = "good night"
