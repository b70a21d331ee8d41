"""Installs gatewayd and its twistd plugin."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "gatewayd" / "__init__.py").read_text(), re.M)
assert VERSION is not None

setup(
    name="gatewayd",
    version=VERSION.group(1),
    description="The front door of a Flow of executors: gRPC, HTTP and WebSocket on a Twisted reactor",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    python_requires=">=3.11",
    packages=[*find_packages(include=["gatewayd", "gatewayd.*"]), "twisted.plugins"],
    package_data={"gatewayd": ["py.typed", "assets/*/*"], "gatewayd.pb": ["*.pyi"]},
    install_requires=[
        "twisted[tls]>=24.7",
        "autobahn>=26.10",
        "klein>=24.8",
        # Measured: from 1.80 on, a call costs a third more CPU than up to 1.78 (docs/performance.md).
        "grpcio>=1.57,<1.79",
        "grpcio-health-checking>=1.57,<1.79",
        "grpcio-reflection>=1.57,<1.79",
        "protobuf>=4.25",
        "pyopenssl>=25.1",
        "docarray>=0.21,<0.30",
        # The client's HTTP and WebSocket, and its progress bar; docarray brings both, in any version.
        "aiohttp>=3.11",
        "rich",
        "numpy",
        "attrs>=23.1",
        "hpack>=4.0",
        "orjson>=3.9",
        "graphql-core>=3.3,<3.4",
        "regex>=2023.8.8",
        "pyyaml>=6.0",
        # What a script or a notebook defines goes to its executors' processes with it.
        "cloudpickle>=3.0",
        "click>=8.1",
        "uvloop>=0.17; platform_python_implementation == 'CPython' and sys_platform != 'win32'",
    ],
    entry_points={"console_scripts": ["gatewayd=gatewayd.cli:main"]},
    extras_require={
        "png": ["pillow>=10.1"],
        "test": [
            "pytest>=8",
            "pytest-twisted>=1.14",
            "hypothesis>=6.100",
            "websockets>=12",
            "treq>=24.9",
            "pillow>=10.1",
            "h2>=4.1",
            "openapi-spec-validator>=0.7.1",
            "schemathesis>=4.0",
        ],
        "dev": [
            "mypy>=1.11",
            "ruff>=0.6",
            "types-protobuf",
            "types-PyYAML",
            "types-regex",
            # What proto/generate.py was last run with: CI compares its output to the letter.
            "grpcio-tools==1.78.2",
        ],
        "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.5,<10"],
    },
)
