"""Forwarding: our own HTTP/1.1 client, its pool, and the relay between client and Ollama."""
