FROM busybox
RUN <<EOF
echo one
# not a comment of the Dockerfile
echo two
EOF
RUN cat > /f <<'A' && cat > /g <<-B
$x
A
	tab
	B
COPY <<one.txt <<"two.txt" /dir/
1 $x
one.txt
2
two.txt
RUN echo '<<EOF' <<< here
