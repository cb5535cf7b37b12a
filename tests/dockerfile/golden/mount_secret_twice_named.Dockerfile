FROM alpine
RUN true
RUN --mount=type=secret,id=a,source=b x
