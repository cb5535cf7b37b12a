FROM alpine
RUN true
RUN --mount=type=secret,required x
