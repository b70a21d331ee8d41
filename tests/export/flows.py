"""The Flows whose exports are kept in golden/; ``python -m tests.export.flows`` writes them anew."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gatewayd.config.document import parse
from gatewayd.config.problems import Diagnostics, Source
from gatewayd.export.loading import Exported, FlowToExport
from gatewayd.export.plan import ExportOptions
from tests.paths import ROOT

GOLDEN: Final = Path(__file__).with_name("golden")
FOLDER: Final = ROOT / "examples" / "search"

SMALL: Final = """
jtype: Flow
executors:
  - name: my_encoder
    uses: encoders.Encoder
"""
LARGE: Final = """
jtype: Flow
with:
  name: text_search
  timeout_send: 3000
gateway:
  protocol: [grpc, http+websocket]
  port: [12345, 12346]
  drain_delay: 8
  grace_period: 20
  rates: [{requests: 100, per: 1}]
  rates_store: "rediss://gateway:${{ ENV.REDIS_PASSWORD }}@redis.internal/0"
  auth: {api_keys: {team: "sha256:0000000000000000000000000000000000000000000000000000000000000000"}}
executors:
  - name: encoder
    uses: Encoder
    py_modules: [executors.py]
    uses_with: {size: 3, key: "${{ ENV.API_KEY }}"}
    env: {TOKEN: "Bearer ${{ ENV.TOKEN }}"}
    replicas: 3
    monitoring: true
    timeout_ready: 90000
    workspace: data
  - name: ranker
    uses: docker://registry.example/ranker:1.2
    needs: gateway
    replicas: {min: 2, max: 6, target_in_flight: 1.5}
  - name: elsewhere
    external: true
    host: grpcs://rank.example:8443
    needs: [encoder, ranker]
    when: {tags__lang: {$eq: en}}
    timeout_send: 500
    retries: 2
  - name: audit
    method: inspect
"""


def of_text(text: str) -> FlowToExport:
    source = Source("flow.yml", Diagnostics())
    return FlowToExport(parse(text, source), source, FOLDER)


def exports() -> Mapping[str, Exported]:
    """By the folder in golden/."""
    options = ExportOptions("registry.example/gatewayd:1")
    full = ExportOptions(
        "registry.example/search:7",
        secrets=("API_KEY", "REDIS_PASSWORD", "TOKEN"),
        secret_name="search-secrets",
        namespace="search",
        gateway_replicas=2,
        max_gateways=5,
        service_monitor=True,
        network="search",
    )
    return {
        "small/k8s": of_text(SMALL).kubernetes(options),
        "small": of_text(SMALL).compose(options),
        "large/k8s": of_text(LARGE).kubernetes(full),
        "large": of_text(LARGE).compose(full),
    }


if __name__ == "__main__":
    for folder, exported in exports().items():
        exported.write(GOLDEN / folder)
