FROM alpine
USER me