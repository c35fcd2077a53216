"""What the commands show, and the two that are more than a few lines: `train` and `doctor`."""
