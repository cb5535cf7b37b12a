FROM alpine
RUN <<EOF
set -e
echo $A # kept

  \
EOF
RUN <<-"E F"
	echo
		tabs
	E F
RUN <<PY python3
print(1)
PY
RUN cat <<a 3<<b > /x && cat <<-c
1
a
2
b
	3
	c
RUN <<X
#!/usr/bin/env python3
print(2)
X
