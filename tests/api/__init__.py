"""The API for programs, in its three faces."""
