"""Cloudlet: the open, self-hosted cloud for mini programs."""

__version__ = "0.1.0"
