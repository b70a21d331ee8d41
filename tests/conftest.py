"""What holds for every test."""

import signal

# A shell that runs the tests in the background has SIGINT ignored, and children inherit that: tests of
# Ctrl-C would wait for ever. A handler of ours becomes the default in a child.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
