"""The worker: it trains trials of a study on one machine.

A worker claims trials from the queue and trains them side by side in lanes. It reports their accuracies, has bad
ones pruned, saves checkpoints, and writes results. `Worker` is the main loop. Each of its parts is a module of its
own: claims (`fetcher`), lanes (`lane_tuner`), running trials (`trial_manager`), results (`finalizer`), checkpoints
(`checkpoint_writer`), leases (`heartbeat`, `lease_returner`), the budget (`budget_watch`) and pauses (`study_watch`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
