"""
Who calls, and whether they may.

    head of a request ──> AccessControl.identify ──> Request.caller ──> Guard.dispatch ──> the engine

A gateway without rules about its callers has neither access control nor guard.
"""
