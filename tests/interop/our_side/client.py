"""
Our client with the docarray that is installed, over standard input: a JSON command, a JSON answer a line.

A command posts one text: ``{"port", "protocol", "on", "text"}``. The answer has the texts that came back
(``got``), or what was raised.
"""

import json
import sys

from gatewayd import Client
from gatewayd.extras import docarray_generation
from gatewayd.messages.generations import Generation

answers = sys.stdout
sys.stdout = sys.stderr

if docarray_generation() is Generation.SECOND:
    from docarray import DocList
    from typed import In

    def sent(text):
        return {"inputs": DocList[In]([In(text=text)]), "return_type": DocList[In]}
else:
    from docarray import Document

    def sent(text):
        return {"inputs": [Document(text=text)]}


for line in sys.stdin:
    command = json.loads(line)
    try:
        client = Client(host="127.0.0.1", port=command["port"], protocol=command["protocol"])
        found = client.post(command["on"], **sent(command["text"]))
        answer = {"got": [doc.text for doc in found]}
    except BaseException as error:
        answer = {"raised": type(error).__name__, "message": str(error)}
    print("ANSWER " + json.dumps(answer), file=answers, flush=True)
