FROM alpine
RUN --network=nonne a
