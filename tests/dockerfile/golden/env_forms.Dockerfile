FROM alpine
ENV A=b C="d e" F=g\ h I='$j' K= "L M"=n
ENV A b  c "d"
ENV A=$A:x
ENV Q="a\"b" R='x"y'
