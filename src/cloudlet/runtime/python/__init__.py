"""The Python shim's files. The platform starts ``shim.py`` and never imports any of this."""
