"""How verify/parameters.py finds out what a class makes of a config."""
