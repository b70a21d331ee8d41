"""
Who calls, and whether they may.

    a protocol's head ──> Door.identify ──> Caller ──> Request.caller ──> Guard.dispatch ──> the engine

A gateway without rules about its callers has neither door nor guard.
"""
