"""The coordinator of a study.

It returns trials of dead workers to the queue, and queues further seeds of the best configurations. It keeps the
study's note in the dashboard, and decides that the study is done. `local` runs a whole study on one machine.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
