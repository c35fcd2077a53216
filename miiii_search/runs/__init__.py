"""Trained runs as files: run folders, reports, the runs of a study's trials, and the summary of a study.

It connects `analysis`, which knows no database, with `study`. Import from the modules; the package itself imports
nothing.
"""
