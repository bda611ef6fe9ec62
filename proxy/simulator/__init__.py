"""An Ollama look-alike for demos, and for tests that need no model.

It answers every route of Ollama that reads or generates with the exact shapes of the real thing, and with
real pauses, but there is no model: the text is always the same and says so. Nothing else in `proxy` imports
this package unless somebody asked for it (`python -m proxy.simulator`, `quickstart` without an Ollama).
"""
