"""The queue of trials: which worker trains which trial, what it writes about it, and the budget that workers share.

`leases` claims trials and keeps them, `overdue` returns abandoned trials to the queue, `results` writes reports and
final results, `budget` limits what a study uses, and `counts` counts trials. All of them work on an open database.
"""
