FROM alpine
RUN --mounts=type=cache a
