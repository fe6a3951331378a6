"""`python -m lethe`, the same as `lethe`."""

from lethe.command_line.main import main

if __name__ == "__main__":
    main()
