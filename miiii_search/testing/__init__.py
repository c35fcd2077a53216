"""Testing: servers, processes, a fake trainer pool and injected faults, which tests and benchmarks share.

The other packages do not import it, and it needs the development dependencies. Each module is imported by its name.
"""
