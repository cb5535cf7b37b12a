FROM --platform="linux/amd64" alpine AS amd64
FROM --platform=linux/arm64 alpine AS other
FROM --platform=${TARGETPLATFORM} alpine
