FROM alp\
ine
ENV A=b\
c
