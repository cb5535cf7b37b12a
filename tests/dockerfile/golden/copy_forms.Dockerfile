FROM alpine
COPY a b
COPY a* b?c dir/ /dst/
COPY ["a b", "c\"d", "/dst dir/"]
COPY --from=0 --chown=$U:g --chmod=u=rwX,go=rX --link --parents --exclude=*.md --exclude="!x y" a b
COPY --link=false --parents=TRUE --chmod=0644 a b
