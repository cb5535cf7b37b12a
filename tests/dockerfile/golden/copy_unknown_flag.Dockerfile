FROM alpine
COPY --chwon=a b c
