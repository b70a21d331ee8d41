"""A Flow in Python: described, started as a process, plotted."""
