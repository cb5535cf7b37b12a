FROM alpine
ENV --x=y A=b
