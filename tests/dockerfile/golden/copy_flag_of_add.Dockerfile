FROM alpine
COPY --checksum=sha256:a b c
