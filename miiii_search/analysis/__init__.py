"""Analysis of trained networks: from weights and records of training to numbers, figures and reports.

`findings.analyze` computes everything for one run, with NumPy and SciPy. `figures` draws it with matplotlib, `report`
combines the figures to an HTML page. `study_summary` does the same for the trials of a whole study. Section, figure and
equation numbers are those of the paper. The names in `__all__` are imported when they are first used, so that
`import miiii_search` stays fast.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
