#!/usr/bin/env python3
"""Takes TLS on port 443 of 127.0.0.1, and hands what comes to a plain server.

    front.py DIRECTORY        makes its certificate, and ends
    front.py DIRECTORY PORT   is in front of 127.0.0.1:PORT

Abaco's v2 clients speak https only, and send their token only to an address
without a port. The certificate is for `localhost` and for the name by which
executions reach this machine; DIRECTORY/authority.pem is who signed it. One at a
time has the port: the next one waits. Prints `ready` when it listens.
"""

import fcntl
import pathlib
import socket
import socketserver
import ssl
import subprocess
import sys
import threading

NAMES = "DNS:localhost,DNS:host.abax.internal,IP:127.0.0.1"


def certificates(directory):
    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    (directory / "extensions").write_text(
        f"basicConstraints = critical,CA:FALSE\nsubjectAltName = {NAMES}\nextendedKeyUsage = serverAuth\n"
    )
    key = ("-newkey", "rsa:2048", "-nodes", "-keyout")
    openssl("req", "-x509", "-days", "2", "-subj", "/CN=testbed authority", *key, "authority.key", "-out", "authority.pem")
    openssl("req", "-subj", "/CN=testbed front", *key, "front.key", "-out", "front.csr")
    openssl(
        "x509", "-req", "-days", "2", "-in", "front.csr", "-CA", "authority.pem", "-CAkey", "authority.key",
        "-CAcreateserial", "-extfile", "extensions", "-out", "front.pem",
    )


def pump(source, sink):
    try:
        while data := source.recv(1 << 16):
            sink.sendall(data)
    except OSError:
        pass  # One of the two hung up.
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def main():
    directory = pathlib.Path(sys.argv[1])
    if len(sys.argv) == 2:
        return certificates(directory)
    port = int(sys.argv[2])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "front.pem", directory / "front.key")

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            try:
                client = context.wrap_socket(self.request, server_side=True)
                server = socket.create_connection(("127.0.0.1", port))
            except OSError:
                return
            with client, server:
                back = threading.Thread(target=pump, args=(server, client), daemon=True)
                back.start()
                pump(client, server)
                back.join()

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True
        request_queue_size = 64

    with open("/run/lock/abax-testbed-https", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with Server(("127.0.0.1", 443), Handler) as server:
            print("ready", flush=True)
            server.serve_forever()


if __name__ == "__main__":
    main()
