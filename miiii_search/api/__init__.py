"""The library: runs and studies from Python.

All names are available as `import miiii_search as ms`. Progress is logged by loggers below `miiii_search`. Nothing is
printed unless `progress=True` asks for a progress bar.
"""

import logging

from miiii_search.api.runs import analyze, load_configuration, load_run, train
from miiii_search.api.studies import create_study, delete_study, list_studies, load_study, presets
from miiii_search.api.study import Study

__all__ = [
    "Study",
    "analyze",
    "create_study",
    "delete_study",
    "list_studies",
    "load_configuration",
    "load_run",
    "load_study",
    "presets",
    "train",
]

# Without a configuration of logging, a script prints nothing; the command line adds a handler of its own.
logging.getLogger("miiii_search").addHandler(logging.NullHandler())
