"""Dialect A: ``POST /admin`` of node-sdk 2 and 3 and wx-server-sdk 2 to 4 (facts: wire-protocol 3)."""
