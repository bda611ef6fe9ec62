"""Accepting: listeners, the client's connection with its guards, and one exchange at a time on it."""
