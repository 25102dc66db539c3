"""Custom rules of collections: compiled from JSON, put into a caller's terms, proved from queries, checked on
documents, explained when they deny.
"""
