"""A name server on loopback, with one name whose A records change: what a headless Service looks like to a client."""

import ipaddress
import socket
import struct
import threading

NAME = "limner.limner.svc"
_A = 1


class NameServer:
    """Answers A questions with `addresses`; `asked` counts them."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.asked = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def target(self, port: int) -> str:
        """Give the gRPC target that is resolved here."""
        return f"dns://127.0.0.1:{self._socket.getsockname()[1]}/{NAME}:{port}"

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            message, sender = self._socket.recvfrom(4096)
            if not message:
                return
            self._socket.sendto(self._answer(message), sender)

    def _answer(self, message: bytes) -> bytes:
        """Answer one question, RFC 1035: header, the question again, a record an address."""
        question = message[12 : message.index(b"\0", 12) + 5]
        (kind,) = struct.unpack(">H", question[-4:-2])
        addresses = self.addresses if kind == _A else []
        self.asked += kind == _A
        answer = message[:2] + struct.pack(">5H", 0x8580, 1, len(addresses), 0, 0) + question
        for address in addresses:
            answer += struct.pack(">3HIH", 0xC00C, _A, 1, 1, 4) + ipaddress.IPv4Address(address).packed
        return answer
