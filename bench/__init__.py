"""The benchmarks: ``make bench-NAME`` runs ``bench.NAME``; results: docs/reference/performance.md."""
