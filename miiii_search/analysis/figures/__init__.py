"""Figures of the analyses, drawn with matplotlib.

Each function takes findings and returns a figure, or None if the data for it is missing. All of them are called within
`style.figure_style()`.
"""
