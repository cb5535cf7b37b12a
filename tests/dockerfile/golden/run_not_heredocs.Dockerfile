FROM alpine
RUN cat <<<"x"
RUN x=$((1<<2))
RUN ["<<EOF"]
RUN echo it's <<EOF
CMD <<EOF
