"""Trained runs as files and rows: run folders, the runs of a study's trials, and a study's summary."""
