"""The command line: one file per command, each talking to the admin socket of a running installation."""
