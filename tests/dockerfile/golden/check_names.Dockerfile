ARG base_image=x
ARG none
# wrong words
FROM $basee_image AS scratch
FROM a AS context
FROM a AS Two
FROM b AS two
FROM c:$none
FROM ${none:-d}
