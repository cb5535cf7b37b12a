FROM alpine
RUN true
RUN --mount=type=cache,id=a x
