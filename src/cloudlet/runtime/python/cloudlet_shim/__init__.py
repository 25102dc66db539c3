"""The Python shim: the main thread runs the function's code, another one serves the network and the clock.

So a handler that waits or computes never keeps the shim from refusing calls, answering a timeout or being
quiesced, and the function finds what the main thread alone has, such as signal handlers.
"""
