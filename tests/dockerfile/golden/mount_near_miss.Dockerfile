FROM alpine
RUN true
RUN --mount=type=cache,targt=/a x
