"""Simulation: recorded studies are replayed under other pruners and samplers, and their results compared.

Nothing is trained, so no module imports JAX. Only `from_study` reads a database.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
