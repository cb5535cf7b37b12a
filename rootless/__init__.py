"""rootless: everything Docker does, for people who have no root.

The rooms of this package import downwards only: cli and api call engine; engine combines dockerfile, compose, registry,
store, network and runtime; those know spec, linux and errors, and not one another. See docs/contributing.md.
"""

__version__ = "0.1.0"
