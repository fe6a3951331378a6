"""A first run: a network that knows a person's records by heart forgets them (`make demo`)."""

import sys

from devstack.startup import StackError, until_interrupted


def main() -> int:
    """Run the demo; the exit status of the process: 0 only if the request was completed."""
    until_interrupted()
    try:
        from devstack.demo import tour  # takes seconds, in which Ctrl-C should work as well

        return tour.run(sys.argv[1:])
    except StackError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; everything that was started is stopped.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
