"""A study as data: its specification, the presets, and how settings on the command line change them."""
