# syntax=docker/dockerfile:1
# not a directive any more: escape=`

  from busybox
run echo one \
    # a comment inside
    && echo two \

    && echo three
Run echo \\
RUN echo trailing spaces \   
  end
CMD echo a\
b
