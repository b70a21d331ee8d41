"""Installs gatewayd and its twistd plugin."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "gatewayd" / "_version.py").read_text(), re.M)
assert VERSION is not None

# 0.21 is the last release of the documents that are spoken here; from 0.30 on the format is another. It
# brings a client of Jina's hub, docker, jose, ecdsa and rsa: the gateway does without (docs/dependencies.md).
DOCUMENTS = ["docarray>=0.21,<0.30"]
# The second generation's: typed documents, in the format that Jina 3.34 speaks. 0.40 is the first with
# pydantic 2; a later minor release may change what gatewayd/executor/second.py builds on. One of the two can
# be installed, and decides what the executors of an installation are (docs/decisions/generations.md).
TYPED_DOCUMENTS = ["docarray>=0.40,<0.42"]
# From 1.34 on, an exporter whose collector is down stops retrying when it is shut down, and its timeout is
# for all tries together.
TRACING = [
    "opentelemetry-sdk>=1.34",
    "opentelemetry-exporter-otlp-proto-grpc>=1.34",
    "opentelemetry-exporter-otlp-proto-http>=1.34",
]
# The first whose endpoints are Twisted's own, and which knows when a connection has taken the password; a new
# major release may change its protocol, which gatewayd/access/redis_store.py uses.
REDIS = ["txredisapi>=1.6,<2"]

setup(
    name="gatewayd",
    version=VERSION.group(1),
    description="The front door of a Flow of executors: gRPC, HTTP and WebSocket on a Twisted reactor",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    author="The gatewayd maintainers",
    license="Apache-2.0",
    license_files=["LICENSE"],
    url="https://gatewayd.example",  # reserved by RFC 2606: until the project has a home of its own
    keywords=["gateway", "grpc", "websocket", "graphql", "twisted", "machine learning", "serving", "jina"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: No Input/Output (Daemon)",
        "Framework :: Twisted",
        "Intended Audience :: Developers",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Internet :: Proxy Servers",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=[*find_packages(include=["gatewayd", "gatewayd.*"]), "twisted.plugins"],
    # What `gatewayd unit` prints, and a Flow to try: in share/gatewayd, as they lie in the sources.
    data_files=[
        ("share/gatewayd/conf", ["conf/gatewayd.service", "conf/flow.yml", "conf/production.yml"]),
        ("share/gatewayd/conf/monitoring", ["conf/monitoring/alerts.yml", "conf/monitoring/grafana.json"]),
        ("share/gatewayd/examples/search", ["examples/search/executors.py"]),
        ("share/gatewayd/conf", ["conf/gatewayd.socket"]),
    ],
    package_data={"gatewayd": ["py.typed", "assets/*/*"], "gatewayd.pb": ["*.pyi"]},
    # Ranges for those who install us beside other things; what the Makefile installs is in constraints.txt.
    install_requires=[
        # 24.7 mends request smuggling and an HTML injection in its HTTP server (CVE-2024-41671, -41810).
        "twisted[tls]>=24.7",
        # The WebSocket session overrides hooks of its frame parser: not to be older than what Autobahn's own
        # suite was run with (make test-wstest).
        "autobahn>=26.10",
        # The first release for Twisted 24.
        "klein>=24.8",
        # Measured: from 1.80 on, a call costs a third more CPU than up to 1.78 (docs/performance.md). 1.57 is
        # what the real Jina 3.14 runs with on Python 3.11: both fit into one environment.
        "grpcio>=1.57,<1.79",
        "grpcio-health-checking>=1.57,<1.79",
        "grpcio-reflection>=1.57,<1.79",
        # The first with the wire contract's optional fields in upb, whose limits json_form keeps to.
        "protobuf>=4.25",
        # Contexts and certificates are handed over as cryptography's objects.
        "pyopenssl>=25.1",
        # Tokens of callers (gateway.auth.jwt): kept since 2011, no dependencies, and imported where there are
        # tokens. 2.10.1 compares issuers as a whole (CVE-2024-53861). It verifies with cryptography, which
        # pyopenssl brings.
        "pyjwt>=2.10.1",
        # HTTP and WebSocket of the client and of `gatewayd ping`; the first with ClientWSTimeout.
        "aiohttp>=3.11",
        # Progress bars and tables on the terminal.
        "rich>=12",
        # Any release: arrays are read with what numpy 1 and 2 have in common.
        "numpy",
        # frozen and slotted classes through `attrs`, with converters that have types.
        "attrs>=23.1",
        # The first with wheels for Python 3.12, and OPT_SERIALIZE_NUMPY for float16.
        "orjson>=3.9",
        # The asyncio execution that GraphQL's limits rely on; 3.4 may change it.
        "graphql-core>=3.3,<3.4",
        # A match with a timeout, on Python 3.11 and 3.12.
        "regex>=2023.8.8",
        # The first with wheels for Python 3.11.
        "pyyaml>=6.0",
        # Metrics in the formats of Prometheus: kept by its project, no dependencies, and imported where there
        # are metrics. choose_encoder knows the scrapers' escaping from 0.22 on.
        "prometheus-client>=0.22",
        # Type variables with a default.
        "typing_extensions>=4.4",
        # What a script or a notebook defines goes to its executors' processes with it. Its Pickler is
        # extended through pickle's own interface, dispatch_table and reducer_override.
        "cloudpickle>=3.0",
        # Shell completion's classes.
        "click>=8.1",
        # asyncio's loop for gRPC. None for Windows.
        "uvloop>=0.17; platform_python_implementation == 'CPython' and sys_platform != 'win32'",
    ],
    entry_points={"console_scripts": ["gatewayd=gatewayd.cli:main"]},
    # gatewayd.extras names these where they are missed.
    extras_require={
        # To start executors, and to write their tests.
        "executor": DOCUMENTS,
        # To start executors that take typed documents.
        "docarray2": TYPED_DOCUMENTS,
        # To call a gateway from Python.
        "client": DOCUMENTS,
        # The first whose default font can be drawn in any size.
        "png": ["pillow>=10.1"],
        # To send traces over OTLP.
        "tracing": TRACING,
        # To place executors on a Ray cluster. The first in which a broken connection to an actor is an error
        # of its own (ActorUnavailableError); a new major release may change that.
        "ray": ["ray>=2.40,<3"],
        # To count rates in Redis.
        "redis": REDIS,
        # The oldest releases that the tests were written with, unless a comment says more. CI runs those of
        # constraints.txt, `make test-latest` the newest.
        "test": [
            *DOCUMENTS,
            *TRACING,
            *REDIS,
            "pytest>=8",
            "pytest-twisted>=1.14",
            # --dist loadfile with workers that are named: tests on all cores.
            "pytest-xdist>=3.5",
            "hypothesis>=6.100",
            # websockets.connect is the asyncio client, which has the argument `proxy`, from 15 on.
            "websockets>=15",
            "treq>=24.9",
            # As in the extra png.
            "pillow>=10.1",
            # HTTP/2 from the other side: the tests' peer of our own client.
            "h2>=4.1",
            # HPACK from the other side: what our decoder is compared with.
            "hpack>=4.0",
            # Executors defined in a notebook: the session that the tests start.
            "ipython>=8.20",
            # validate() for OpenAPI 3.1.
            "openapi-spec-validator>=0.7.1",
            # schemathesis.openapi and the checks' new modules: version 3 has neither.
            "schemathesis>=4.0",
            # The ASGI framework that FastAPI is built on, as a gateway class's application.
            "starlette>=0.40",
        ],
        # Checkers and stubs find different things from release to release: CI runs those of constraints.txt.
        "dev": [
            "mypy>=1.11",
            "ruff>=0.6",
            # pyright, and the node.js that it runs on: the other of the two type checkers that users have.
            "basedpyright>=1.29",
            # The types of Twisted's interfaces, such as reactors.
            "mypy-zope>=1.0.4",
            "types-grpcio",
            "types-grpcio-health-checking",
            "types-grpcio-reflection",
            "types-protobuf",
            "types-PyYAML",
            "types-regex",
            # What proto/generate.py was last run with: CI compares its output to the letter.
            "grpcio-tools==1.78.2",
        ],
        # The next majors may change what docs/tools/hooks.py and the theme's overrides rely on.
        "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.5,<10"],
    },
)
