"""
What runs at the other end: the Executor base class, its process, and the supervisor of those processes.

Nothing is imported here: the Flow's start waits for that of its slowest replica.
"""
