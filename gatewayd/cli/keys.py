"""``gatewayd api-key``, which makes API keys."""

from __future__ import annotations

import json

from gatewayd.access.keys import new_key
from gatewayd.cli.output import fail, note, say
from gatewayd.config.auth_kinds import name_fault


def print_key(name: str) -> int:
    """Print a new key for the caller ``name``, and its line for a Flow file. Returns the exit code."""
    if fault := name_fault(name):
        return fail(fault)
    key, digest = new_key()
    note(f"The key of {name}, which is not shown again:")
    say(key)
    note(
        "The line for gateway.auth.api_keys in the Flow file, or for gateway.admin_keys if it is an "
        "operator's; it does not have the key itself:"
    )
    # In quotes, the name is text in YAML whatever it looks like.
    say(f"{json.dumps(name)}: {digest}")
    return 0
