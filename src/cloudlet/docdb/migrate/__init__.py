"""Moving an environment from one engine to another while it is used, and back."""
