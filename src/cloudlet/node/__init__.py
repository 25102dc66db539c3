"""The parent process: it owns cells, instances, their logs and the platform's other processes."""
