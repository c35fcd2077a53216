"""The queue of trials: which worker trains which trial, what it writes about it, and the budget that workers share.

`TrialQueue` in `trial_queue` does all of this on a database. `leases` and `results` are its data: leases, heartbeats
and results. `budget` limits what a study uses, and `abandoned` describes trials whose workers are gone. The modules
with a leading underscore hold the SQL.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
