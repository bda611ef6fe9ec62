"""Guarding: bodies that have to be judged are read whole, within bounds, and go on as the bytes that came."""
