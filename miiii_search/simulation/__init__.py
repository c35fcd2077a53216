"""Simulation: recorded studies are replayed under other pruners and samplers, and their results compared.

Nothing is trained, so no module imports JAX. Only `from_study` reads a database.
"""
