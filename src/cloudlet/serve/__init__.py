"""The wiring: settings in, running system out. One file per process."""
