"""Training with JAX: the network, the loss, the optimizer, and the compiled programs that train many runs in parallel.

Import the names from the modules. The package re-exports none, since most of them need JAX, while `jax_environment` and
`version` must be importable without it.
"""
