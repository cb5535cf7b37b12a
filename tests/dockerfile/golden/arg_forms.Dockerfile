ARG A B=1 C="x y" D=$B
FROM alpine
ARG A
ARG E=${A:-z} F=
ENV G=$E$H
