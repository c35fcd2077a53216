"""Studies in their database: creating, opening, reading, changing, exporting and deleting them.

`Study` is an open study. Each other module is one operation on studies, or one view of them. Import names from their
modules: this package imports nothing by itself, so that a command loads only what it needs.
"""
