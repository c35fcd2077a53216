"""The queue of trials: which worker trains which trial, what it writes about it, and the budget that workers share.

`leases` claims trials and renews their leases. `requeue` returns trials to the queue, and `abandoned` finds those whose
workers are gone. `results` writes reports and final results. `budget` limits what a study uses, and `counts` counts
trials. All of them work on an open database.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
