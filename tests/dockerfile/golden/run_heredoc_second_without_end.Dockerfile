FROM alpine
RUN cat <<a <<b
x
a
