"""Who trains which trial: leases, reports and results, and the budget that all workers share."""
