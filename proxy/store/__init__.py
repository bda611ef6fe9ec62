"""Where keys are kept: one SQLite file, changed by the command line and followed by a running proxy."""
