# escape=`
FROM busybox
COPY a `
  c:\b\
RUN echo \
WORKDIR c:\x`$y
