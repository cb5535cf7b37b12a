FROM alpine
RUN true
RUN --mount=type=bind,target x
