"""Studies in their database: creating, opening, reading, changing, exporting and deleting them.

`Study` is an open study. Each other module is one operation on studies, or one view of them. The names
in `__all__` are imported when they are first used, so that a command loads only what it needs. Functions that have the
name of their module, such as `extend.extend`, are imported from it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
