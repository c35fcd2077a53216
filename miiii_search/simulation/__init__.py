"""What another pruning rule would have done: recorded curves, a study replayed on them, and what came of it.

NumPy and the rules of `search`; no JAX, no database but where a user's own study is read.
"""
