"""The command line, run as a process as users run it."""
