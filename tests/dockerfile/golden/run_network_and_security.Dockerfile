FROM alpine
RUN --network=none a
RUN --network=host --security=insecure b
RUN --network=default --security=sandbox c
RUN -- --not-a-flag
