FROM alpine
VOLUME /a /b
VOLUME ["/c d", "/e"]
