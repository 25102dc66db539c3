"""The document store on PostgreSQL: one schema per environment, written under one lock, read from a pool."""
