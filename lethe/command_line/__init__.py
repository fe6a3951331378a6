"""The command line: `lethe`. It speaks to people, or with `--json` to programs."""
