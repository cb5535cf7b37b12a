FROM alpine
COPY --chown=a --chown=b b c
