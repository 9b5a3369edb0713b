"""The rules: one file per algorithm, each readable alone."""
