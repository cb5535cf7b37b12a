# one
FROM alpine
  # indented
RUN a && \
# inside
  # indented inside
    b && \   

  c # not a comment
RUN x\\
\
RUN y
RUN z\
