FROM alpine
RUN true
RUN --mount=type=tmpfs,target=/a,size=big x
