# VERSION the version
ARG VERSION
# something else
ARG OTHER

# base is the base
FROM scratch AS base
# unrelated

ARG X
