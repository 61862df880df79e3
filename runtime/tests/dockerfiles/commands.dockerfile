FROM scratch
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN ["/bin/echo", "a b"]
RUN [ -f /x ] && echo not json
RUN --network=none echo "quoted  spaces"
ENTRYPOINT ["sh", "/x.sh"]
ENTRYPOINT exec top -b
CMD []
CMD ["a"]
COPY --chown=1:2 --chmod=0644 a b*.txt "c d" /x/
COPY ["with space", "/y"]
ADD a.tar.gz .
