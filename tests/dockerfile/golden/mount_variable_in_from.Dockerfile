FROM alpine
RUN true
RUN --mount=type=bind,target=/a,from=$X x
