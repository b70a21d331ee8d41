"""Serves the Flow of the file that the command line names."""

import inspect
import os
import sys

if __name__ == "__main__":
    from gatewayd import Flow

    flow = Flow.load_config(
        "flow.yml" if len(sys.argv) == 1 else sys.argv[1],
        extra_search_paths=[os.path.dirname(inspect.getfile(inspect.currentframe()))],
    )
    with flow:
        flow.block()
