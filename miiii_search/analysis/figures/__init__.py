"""The figures of the analyses: each function takes findings and returns a matplotlib figure, or None where it cannot."""
