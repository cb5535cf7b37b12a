"""The process that meets what containers and the world send."""

from slirp.services import Services as Services
