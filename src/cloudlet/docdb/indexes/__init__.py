"""Indexes: what a document enters into them, what they can promise, when they are made and when they go."""
