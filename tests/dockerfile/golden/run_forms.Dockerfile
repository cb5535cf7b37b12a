FROM alpine
RUN echo "a  b" $X
RUN ["/bin/sh", "-c", "echo $X"]
RUN [ "a" , 'b' ]
RUN [ -f x ] && y
RUN ["a", "\u00e9\ud83d"]
