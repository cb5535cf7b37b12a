FROM alpine
HEALTHCHECK --retry=1 CMD x
