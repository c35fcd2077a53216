"""One training run as data: its settings, its tasks, its final metrics and the record of its training.

Nothing in here needs JAX or a database.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
