"""The point after which a process of ours sees a container's files: from then on nothing may be imported.

Python imports late in many places: codecs when a name is first used, C modules inside functions. In a container such an
import would run the container's code with our rights (CVE-2019-14271 was this, through glibc). So before entering, what
will be needed is loaded, and then the import system is taken away: a forgotten import fails, it never finds anything.
"""

import codecs
import sys


def no_more_imports() -> None:
    """Load the codecs that text may need, and disable every later import in this process."""
    for name in ("ascii", "utf-8", "latin-1"):
        codecs.lookup(name)
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.path.clear()
    sys.path_importer_cache.clear()
