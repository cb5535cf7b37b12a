"""`python -m rootless`: the same as the console script.

`-m` puts the current directory first on the path, where a stranger's `json.py` would be imported as ours. It goes
before anything else is imported; this package needs it no more. (`python -P` and `-I` do not put it there.)
"""

import sys

if __name__ == "__main__":
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):  # safe_path: Python 3.11
        del sys.path[0]
    from rootless.cli.main import main

    main()
