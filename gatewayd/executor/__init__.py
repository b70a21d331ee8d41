"""
What runs in executor processes: the Executor base class, and the process that serves it.

Nothing is imported here: a Flow starts only as fast as its slowest replica.
"""
