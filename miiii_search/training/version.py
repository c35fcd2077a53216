"""Which training program this is: what decides whether two versions of the package train the same run alike."""

TRAINING_PROGRAM = 1
"""Raised by a change after which the same run comes out differently; every other version is compatible.

A study holds the numbers of the programs that may train it; see `Study.admit_program`.
"""
