"""What this machine's kernel can do for the networks, found out no earlier than it has to be.

A probe makes a namespace with all rules and throws it away, which takes as long as making the first network. So the
first network is the probe: it is tried with everything, and only where that fails is the kernel asked what is missing.
"""

from slirp.errors import HostUnsupported
from slirp.links import NetworkLinks, Plan
from slirp.rules import Support, probe


class Kernel:
    """The kernel, as far as `--path` lets us use it."""

    __slots__ = ("_best", "_known", "_user")

    def __init__(self, path: str) -> None:
        """*path* is "auto", "kernel", "user". Raises HostUnsupported where it says kernel and there is no tproxy."""
        self._user = path == "user"
        self._best = Support(True, not self._user, "asked for by --path user" if self._user else "")
        self._known: Support | None = None
        if path == "kernel" and not self.support().tproxy:
            raise HostUnsupported(f"this kernel cannot hand connections over (tproxy): {self.support().reason}")

    def support(self) -> Support:
        """What there is."""
        if self._known is None:
            found = probe()
            self._known = self._best._replace(filters=found.filters) if self._user else found
        return self._known

    def links(self, plan: Plan) -> NetworkLinks:
        """A network. Raises OSError."""
        if self._known is None:
            try:
                links = NetworkLinks(plan, self._best)
            except OSError:
                return NetworkLinks(plan, self.support())  # which asks what is missing
            self._known = self._best
            return links
        return NetworkLinks(plan, self._known)
