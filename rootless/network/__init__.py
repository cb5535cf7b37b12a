"""Networks and endpoints as records; the name files of a container (hosts, hostname, resolv.conf)."""
