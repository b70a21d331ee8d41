from twisted.application.service import ServiceMaker

gateway = ServiceMaker(
    "gatewayd",
    "gatewayd.service.plugin",
    "Serves a Flow of executors over gRPC, HTTP and WebSocket.",
    "gateway",
)
