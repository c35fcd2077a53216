"""Distributed hyperparameter search."""
