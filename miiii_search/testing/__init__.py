"""Testing: servers, processes, fakes in memory and injected faults, which tests and benchmarks share.

The other packages do not import it, and it needs the development dependencies. The names in `__all__` are
imported when they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
