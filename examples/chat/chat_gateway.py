"""Serves the chat page beside the gateway's own paths, at /page."""

from pathlib import Path

from twisted.web.static import File

from gatewayd import Gateway


class ChatGateway(Gateway):
    """The files of the folder page/."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.app = {"/page": File(str(Path(__file__).parent / "page"))}
