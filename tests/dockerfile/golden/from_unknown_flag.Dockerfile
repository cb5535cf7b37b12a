FROM --plattform=linux/amd64 a
