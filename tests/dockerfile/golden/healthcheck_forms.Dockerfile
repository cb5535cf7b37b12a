FROM alpine
HEALTHCHECK --interval=1h2m3.5s --timeout=500ms --start-period=0s --start-interval=1s --retries=3 CMD curl -f x || exit 1
FROM alpine
HEALTHCHECK cmd ["a", "b"]
FROM alpine
HEALTHCHECK NONE
