"""Training with JAX.

The network, the loss, the optimizer, and the compiled programs that train many runs side by side.
"""
