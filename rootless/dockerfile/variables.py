"""Variables that exist without the Dockerfile: the builder's platforms, and those that ARG need not declare."""

# Known in FROM at once, and in a stage after `ARG NAME`.
PLATFORM_ARGS = (
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDOSVERSION",
    "BUILDARCH",
    "BUILDVARIANT",
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETOSVERSION",
    "TARGETARCH",
    "TARGETVARIANT",
    "TARGETSTAGE",
)

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")

# --build-arg gives them to RUN without an ARG; they are neither part of the cache's keys nor of the history.
PREDEFINED_ARGS = (*_PROXIES, *(name.lower() for name in _PROXIES))

# --build-arg sets them for the builder itself.
BUILDER_ARGS = (
    "BUILDKIT_CACHE_MOUNT_NS",
    "BUILDKIT_CONTEXT_KEEP_GIT_DIR",
    "BUILDKIT_DISABLE_ONBUILD",
    "BUILDKIT_DOCKERFILE_CHECK",
    "BUILDKIT_GIT_DEBUG_COMMANDS",
    "BUILDKIT_INLINE_CACHE",
    "BUILDKIT_MULTI_PLATFORM",
    "BUILDKIT_SANDBOX_HOSTNAME",
    "BUILDKIT_SYNTAX",
    "SOURCE_DATE_EPOCH",
)
