"""Documents from files and into files: import jobs and exports."""
