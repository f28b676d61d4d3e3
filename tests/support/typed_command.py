"""What a shell starts in the place of `darkroom`: it hands its streams, its folder and its environment to the process
that forks (`forked_commands.py`), and ends as the command does. It imports next to nothing.
"""

import os
import socket
import sys
import tempfile


def main() -> None:
    address, *arguments = sys.argv[1:]
    streams = [number for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)) if stream is not None]
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line, tempfile.TemporaryFile("w+") as order:
        line.connect(address)
        variables = (f"{name}={value}" for name, value in os.environ.items())
        order.write("\0".join([os.getcwd(), str(len(arguments)), *arguments, *variables]))
        order.flush()
        socket.send_fds(line, ["".join(map(str, ("$", *streams))).encode()], [order.fileno(), *streams])
        line.recv(20)
        code = int(line.recv(20))
    if code < 0:
        os.kill(os.getpid(), -code)
    os._exit(code)


main()
