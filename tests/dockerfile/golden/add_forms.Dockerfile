FROM alpine
ADD a.tar.gz /x
ADD --checksum=sha256:abc --chown=1:2 --chmod=644 https://example.com/a?b=c /x
ADD --keep-git-dir=true --link git@github.com:a/b.git#v1:sub /y
ADD --unpack=false --exclude=*.o a.tar /z
ADD --unpack ["https://e/a.tar", "/z"]
ADD <<f /f
x
f
