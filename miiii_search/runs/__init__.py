"""Trained runs as files: run folders, reports, the runs of a study's trials, and the summary of a study.

It connects `analysis`, which knows no database, with `study`. The names in `__all__` are imported
when they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
