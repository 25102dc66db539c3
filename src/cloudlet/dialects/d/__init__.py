"""Dialect D: the gateway REST interface, ``/v1`` and ``/auth/v1`` (facts: wire-protocol 2.4, 3.6)."""
