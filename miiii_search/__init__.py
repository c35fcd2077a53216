"""Hyperparameter search for grokking research."""
