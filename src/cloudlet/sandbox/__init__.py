"""Cells: processes kept apart from their host, one file per rung of the isolation ladder."""
