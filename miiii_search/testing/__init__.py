"""What tests and benchmarks share: servers, processes, a fake trainer pool, and faults.

Not imported by the rest of the package; it needs the development dependencies.
"""
