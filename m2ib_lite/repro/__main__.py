"""python -m m2ib_lite.repro figures [MODEL=... DEVICE=... N_PAIRS=...]   every notebook, build/figures/index.html, a table
python -m m2ib_lite.repro record   keep that run's numbers and figures under data/
"""

import sys

from .runner import figures, record

if __name__ == "__main__":
    try:
        if sys.argv[1:] == ["record"]:
            record()
        elif sys.argv[1:2] == ["figures"]:
            sys.exit(figures(sys.argv[2:]) > 0)  # 1 where a notebook failed
        else:
            sys.exit(__doc__)
    except ValueError as error:
        sys.exit(f"error: {error}")
