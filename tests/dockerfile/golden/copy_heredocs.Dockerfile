FROM alpine
COPY <<a.txt <<"b.txt" c /dst/
$X
a.txt
$Y
b.txt
COPY --chmod=755 <<-EOT /x
	one
		two
	EOT
COPY ["<<EOF", "/x"]
