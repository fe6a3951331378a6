"""Reading jobs, and having a failed one tried again."""
