from alpine as base
run a
copy b c
RUN d
