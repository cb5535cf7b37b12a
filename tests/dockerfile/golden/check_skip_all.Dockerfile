# check=skip=all
from A
RUN x
CMD y
CMD z
