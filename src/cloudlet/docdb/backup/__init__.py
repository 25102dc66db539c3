"""Backups of an environment: whole copies, the change log between them, restoring, rehearsing."""
