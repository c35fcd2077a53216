"""The coordinator.

It returns abandoned trials to the queue and keeps the study's note. Also a whole search on one machine.
"""
