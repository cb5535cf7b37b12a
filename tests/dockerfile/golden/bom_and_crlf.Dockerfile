# escape=`
FROM alpine
RUN a `
  # no
  b
RUN <<E
x
E
