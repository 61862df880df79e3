echo "Contents of MSG: $MSG"
sleep 2
echo "The environment:"
env
echo "The root:"
ls /
if [ -e /_abaco_data1 ]; then
    echo "/_abaco_data1 is mounted:"
    ls /_abaco_data1
fi
