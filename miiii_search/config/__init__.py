"""A study as data: its specification, the presets, and settings that override single keys.

Nothing in here needs JAX or a database.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
