ARG TAG=latest OTHER
FROM --platform=$BUILDPLATFORM busybox:${TAG} As Build
ENV A=1 B="two words" C=three\ words D='$A'
ENV OLD form keeps   its spaces
LABEL a.b="c d" "e f"=g
ARG ONE TWO=2 THREE="3 4"
EXPOSE 80 443/tcp ${PORTS}
VOLUME /a /b
VOLUME ["/c d"]
USER ${USER:-nobody}:nogroup
STOPSIGNAL SIGINT
MAINTAINER Somebody <somebody@example.org>
