"""The status of a request, from those of its targets."""


def total(targets):
    """What the statuses of targets add up to, told another way than in SQL."""
    statuses = {target.status.value for target in targets}
    if "needs_review" in statuses:
        return "needs_review"
    if not statuses & {"pending", "scheduled", "running"}:
        return next(s for s in ("failed", "refused", "cancelled", "completed") if s in statuses)
    if "running" in statuses or any(
        target.job_id and target.status in ("completed", "failed") for target in targets
    ):
        return "running"
    return "scheduled" if "scheduled" in statuses else "pending"
