FROM alpine
RUN --mount=type=bind,from=x,source=/a,target=/b,rw --mount=type=cache,id=n,dst=/c,sharing=locked,mode=0755,uid=1,gid=2,from=y,src=z,ro=false true
RUN --mount=type=tmpfs,target=/t,size=64m --mount=type=secret,id=s,required,mode=0400,uid=3,gid=4,target=/s,env=S --mount=type=ssh,id=d,required=true x
RUN --mount=target=$T,readonly,source=$S --mount=from=x --mount=type=$K,target=/x y
RUN --mount=type=cache,\"target=/a,b\" '--mount=type=bind,target=/q q' z
