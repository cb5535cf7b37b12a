"""Programs for containers that attack their network: Python, run by the machine's own interpreter in the image `host`.

Each is a text for `python3 -c`, prints one JSON value, and takes its arguments from the command line.
"""

# A service by TCP and UDP, IPv4 and IPv6, that answers with its name. Arguments: name, port.
SERVICE = r"""
import select, socket, sys
name, port = sys.argv[1].encode(), int(sys.argv[2])
streams = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=200)
datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
datagrams.bind(("::", port))
print("serving", flush=True)
while True:
    for ready in select.select([streams, datagrams], [], [])[0]:
        try:
            if ready is streams:
                with streams.accept()[0] as connection:
                    connection.sendall(name)
            else:
                datagrams.sendto(name, datagrams.recvfrom(100)[1])
        except OSError:
            pass
"""

# Who answers? Arguments: port, addresses. {"ADDRESS": ["tcp", "udp", "ping"], ...}, without those that do not.
PROBE = r"""
import json, socket, subprocess, sys, threading
port, found = int(sys.argv[1]), {}
def attempt(kind, address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        if kind == "tcp":
            with socket.create_connection((address, port), 1.5) as connection:
                answer = connection.recv(100)
        elif kind == "udp":
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.settimeout(1.5)
                sock.connect((address, port))
                sock.send(b"?")
                answer = sock.recv(100)
        else:
            with socket.socket(family, socket.SOCK_DGRAM, 58 if ":" in address else 1) as sock:
                sock.settimeout(1.5)
                sock.connect((address, 0))
                sock.send(bytes((128 if ":" in address else 8, 0, 0, 0, 0, 1, 0, 1)) + b"ping")
                answer = sock.recv(100)
    except OSError:
        return
    found.setdefault(address, []).append(kind)
threads = [threading.Thread(target=attempt, args=(kind, a)) for a in sys.argv[2:] for kind in ("tcp", "udp", "ping")]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps({address: sorted(kinds) for address, kinds in found.items()}))
"""

# TCP ports that accept, and UDP ports that answer: all of TCP at the first address; else those below 1024, and of the
# rest each so manieth. Arguments: so many, addresses.
SCAN = r"""
import errno, json, select, socket, sys
found, step = {}, int(sys.argv[1])
question = bytes.fromhex("123401000001000000000000037765620000010001")
for address in sys.argv[2:]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    where = lambda port: socket.getaddrinfo(address, port, family, socket.SOCK_STREAM)[0][4]
    base, open_ports = where(1), []
    some = [*range(1, 1024), *range(1024, 65536, step)]
    every = list(range(1, 65536)) if address == sys.argv[2] else some
    for first in range(0, len(every), 1000):
        poll, socks = select.poll(), {}
        for port in every[first:first + 1000]:
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            code = sock.connect_ex((base[0], port, *base[2:]))
            if code in (0, errno.EINPROGRESS):
                poll.register(sock, select.POLLOUT)
                socks[sock.fileno()] = sock, port
        while socks and (events := poll.poll(500)):
            for fd, event in events:
                sock, port = socks.pop(fd)
                poll.unregister(fd)
                if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    open_ports.append(port)
        if len(socks) > 900:  # nothing is said by anybody here
            break
    answers, sock = set(), socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    def take(seconds):
        while select.select([sock], [], [], seconds)[0]:
            try:
                answers.add(sock.recvfrom(1000)[1][1])
            except OSError:
                pass
    for port in [*some, 53]:
        try:
            sock.sendto(question, (base[0], port, *base[2:]))
        except OSError:
            pass
        if port % 50 == 0:
            take(0)
    take(0.5)
    found[address] = [sorted(open_ports), sorted(answers)]
print(json.dumps(found))
"""

# The frames that reach eth0 and are not for its owner, or have "forged" in them, until stdin ends.
SNIFF = r"""
import json, select, socket, struct, sys
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
sock.bind(("eth0", 3))
sock.setsockopt(263, 1, struct.pack("iHH8s", socket.if_nametoindex("eth0"), 1, 0, b""))  # promiscuous
own = sock.getsockname()[4]
print("listening", flush=True)
foreign = forged = 0
while True:
    ready = select.select([sock, sys.stdin], [], [])[0]
    if sock in ready:
        data, (_, _, kind, _, _) = sock.recvfrom(70000)
        if kind != 4:  # PACKET_OUTGOING
            foreign += data[:6] != own and not data[0] & 1
            forged += b"forged" in data
    elif sys.stdin in ready:
        break
print(json.dumps([foreign, forged]))
"""

# Links in other namespaces that the kernel shows to, and removes for, who asks by their numbers: [[number, name], ...].
REACH = r"""
import json, socket, struct, sys
GETLINK, DELLINK, ERROR, DONE, TARGET_NETNSID = 18, 17, 2, 3, 46
def ask(kind, flags, index, number):
    body = struct.pack("=BxHiII", 0, 0, index, 0, 0) + struct.pack("=HHi", 8, TARGET_NETNSID, number)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.settimeout(5)
        sock.send(struct.pack("=IHHII", 16 + len(body), kind, 1 | flags, 1, 0) + body)
        found = []
        while True:
            data = sock.recv(1 << 17)
            while data:
                size, kind = struct.unpack_from("=IH", data)
                if kind in (ERROR, DONE):
                    return found
                found.append((struct.unpack_from("=i", data, 20)[0], name(data[32:size])))
                data = data[size + 3 & ~3:]
def name(data):
    while len(data) > 4:
        size, kind = struct.unpack_from("=HH", data)
        if kind == 3:
            return data[4:size].rstrip(b"\0").decode()
        data = data[size + 3 & ~3:]
ask(GETLINK, 0x300, 0, 0)
links = [(number, *link) for number in range(8) for link in ask(GETLINK, 0x300, 0, number)]
if "remove" in sys.argv:
    for number, index, _ in links:
        if number == 0:
            ask(DELLINK, 4, index, 0)
print(json.dumps([[number, name] for number, _, name in links]))
"""
