"""Samplers that choose the next point of the search space."""
