"""One training run as data.

Its settings, its tasks, its metrics and the record of its training. No JAX, no database.
"""
