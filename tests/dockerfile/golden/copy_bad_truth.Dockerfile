FROM alpine
COPY --link=maybe b c
