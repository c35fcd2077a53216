"""The figures of the analyses.

Each function takes findings and returns a matplotlib figure, or None where what it needs is missing. All are called
within `style.styled()`.
"""
