FROM alpine
RUN true
RUN --mount=type=cache,target=/a,sharing=lock x
