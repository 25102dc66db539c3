"""Control records: environments, functions, users, keys."""
