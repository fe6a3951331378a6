"""The sweep: planning waiting requests, freeing lost jobs, deleting what nobody needs."""
