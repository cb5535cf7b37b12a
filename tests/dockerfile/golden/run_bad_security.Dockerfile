FROM alpine
RUN --security=open a
