"""The process that runs one version of one Python function; the contract is ``../contract.md``.

Needs Python 3.11 or later and nothing else. Run as ``python -I -S -B shim.py``.
"""

import os
import sys

if __name__ == "__main__":
    # The shim is one package with a name of its own, so that no module of a function can be mistaken for one
    # of its modules or the other way round.
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    main = __import__("cloudlet_shim.main", fromlist=["main"]).main
    del sys.path[0]
    main()
