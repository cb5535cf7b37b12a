FROM alpine
RUN true
RUN --mount=type=tmpfs,target=/a,mode=0700 x
