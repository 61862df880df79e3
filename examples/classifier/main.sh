#!/bin/sh
echo "Contents of MSG: $MSG"
exec python3 /classifier/classify.py "$MSG"
