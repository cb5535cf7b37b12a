FROM alpine
RUN true
RUN --mount=type=secret,id=a,from=b x
