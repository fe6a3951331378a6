"""The sweep: plans waiting requests, requeues lost jobs, deletes what is no longer needed."""
