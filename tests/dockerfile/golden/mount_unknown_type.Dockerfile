FROM alpine
RUN true
RUN --mount=type=cash,target=/a x
