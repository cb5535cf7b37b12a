FROM alpine
RUN true
RUN --mount=type=cache,target=/a,uid=root x
