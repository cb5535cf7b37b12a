ARG V=3 W
ARG X
FROM --platform=$BUILDPLATFORM alpine:${V} AS Build.1_a-b
FROM build.1_a-b
FROM scratch as y
FROM	image@sha256:abc	 AS	z
