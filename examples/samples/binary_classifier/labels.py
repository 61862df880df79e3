"""Names what the photo in the binary message shows, in the log and as a result."""

import subprocess
import tempfile

from agavepy.actors import get_binary_message, send_bytes_result

with tempfile.NamedTemporaryFile() as photo:
    photo.write(get_binary_message())
    photo.flush()
    labels = subprocess.run(
        ["python3", "/classifier/classify.py", photo.name], check=True, stdout=subprocess.PIPE
    ).stdout
print(labels.decode(), end="")
send_bytes_result(labels)
