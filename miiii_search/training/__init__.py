"""Training with JAX: the network, the loss, the optimizer, and the compiled programs that train many runs in parallel.

The names in `__all__` are imported when they are first used: most of them need JAX, while `jax_environment` and
`version` must be importable without it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
