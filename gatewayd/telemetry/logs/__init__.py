"""The log: which events are in it, in what form, and where it goes."""
