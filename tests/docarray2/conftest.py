"""
Executors with docarray 0.40 and later, which cannot be installed beside 0.21.

``make test-docarray2`` runs these tests in a venv of its own; elsewhere they are left out.
"""

import warnings
from pathlib import Path

import pytest

from gatewayd.extras import docarray_generation
from gatewayd.messages.generations import Generation

collect_ignore_glob = ["test_*.py"]
if docarray_generation() is Generation.SECOND:
    collect_ignore_glob = []
    with warnings.catch_warnings():
        # docarray 0.41 is written for pydantic 2.0: of what later ones deprecate it uses a lot.
        warnings.simplefilter("ignore", DeprecationWarning)
        import docarray.documents.legacy
        import docarray.proto
        import docarray.typing  # noqa: F401


def pytest_collection_modifyitems(items):
    ignored = pytest.mark.filterwarnings("ignore::DeprecationWarning")
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(ignored)
