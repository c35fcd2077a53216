"""One training run: JAX, Flax, Optax and NumPy; no search, no database, no terminal.

`spec` is free of JAX, so that whoever only reads an experiment starts quickly.
"""
