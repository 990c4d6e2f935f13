"""python -m m2ib_lite.repro figures [MODEL=... DEVICE=... N_PAIRS=...]   every notebook, build/figures/index.html, a table
python -m m2ib_lite.repro record   keep that run's numbers and figures under data/
"""

import sys

from .runner import figures, record


def main(arguments):
    """Exit status 1 where a notebook failed, a message where a setting is wrong."""
    try:
        if arguments == ["record"]:
            record()
        elif arguments[:1] == ["figures"]:
            sys.exit(1 if figures(arguments[1:]) else 0)
        else:
            sys.exit(__doc__)
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
