FROM alpine
RUN true
RUN --mount=type=bind,\"target=/a x
