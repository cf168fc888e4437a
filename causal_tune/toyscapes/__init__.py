"""A small rendered world in five weathers."""
