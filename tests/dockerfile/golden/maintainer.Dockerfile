FROM alpine
MAINTAINER Some One <a@b>
