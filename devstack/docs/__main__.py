"""Writes the generated parts of the documentation: `python -m devstack.docs`, or `make docs`.

With `--check` nothing is written: it exits 1 and names the pages that are out of date.
"""

import argparse
import sys

from devstack.docs import pages


def main() -> int:
    """Bring the pages up to date; the exit status of the process."""
    parser = argparse.ArgumentParser(prog="python -m devstack.docs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, name stale pages")
    check = parser.parse_args().check
    stale = pages.stale()
    for path, text in stale.items():
        if not check:
            path.write_text(text)
        print(f"{path.relative_to(pages.REPOSITORY)} {'is out of date' if check else 'written'}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
