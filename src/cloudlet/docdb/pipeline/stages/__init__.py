"""The stages of a pipeline, one module per family, each with a table from name to parser."""
