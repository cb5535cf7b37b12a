FROM alpine
LABEL a.b="c d" e=f \
  "g h"=i
LABEL old form here
