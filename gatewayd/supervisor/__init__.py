"""Executor processes, seen from the gateway: started, watched, restarted, stopped."""
