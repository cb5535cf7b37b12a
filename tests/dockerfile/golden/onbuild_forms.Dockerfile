FROM alpine
ONBUILD RUN  a  b
onbuild COPY --from=x a b
ONBUILD COPY <<a /x
hi
a
ONBUILD ENV A=b
