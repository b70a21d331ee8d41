"""
What runs at the other end: the Executor base class, its process, and the supervisor of those processes.

Nothing is imported here: a replica's start-up time is paid by everybody who waits for the Flow.
"""
