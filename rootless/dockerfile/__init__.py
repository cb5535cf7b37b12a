"""Dockerfiles: text in, typed stages out. Nothing here reads a file, asks the network or looks at a clock."""
