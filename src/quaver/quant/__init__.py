"""How weights are kept in fewer bits: one file a format, and `apply`, which puts them in."""
