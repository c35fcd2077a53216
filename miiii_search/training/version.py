"""The version of the training program. Two versions of the package with the same one train a run identically."""

TRAINING_PROGRAM = 1
"""Version number. Any change that alters the result of a run must increase it.

A study stores the versions that may train it; see `Study.admit_program`.
"""
