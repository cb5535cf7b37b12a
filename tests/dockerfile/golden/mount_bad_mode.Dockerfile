FROM alpine
RUN true
RUN --mount=type=cache,target=/a,mode=0899 x
