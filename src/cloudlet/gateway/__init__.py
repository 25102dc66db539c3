"""The doors: what calls pass on their way to an instance."""
