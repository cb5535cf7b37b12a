"""The words of an nftables rule, and the requests that make tables, chains, sets and rules.

A rule is a list of expressions that the kernel runs one after the other on registers: load something into one, compare
it or look it up in a set, and where nothing has said no, give a verdict. `nft --debug=netlink` shows the same language.
Numbers of 32 bits are in network order here.
"""

import struct
from collections.abc import Iterable

from slirp.netlink import (
    CREATE,
    NLM_F_APPEND,
    NLM_F_CREATE,
    Request,
    attribute,
    nested,
    netfilter_header,
    request,
    text,
)

Expression = bytes  # an attribute NFTA_LIST_ELEM
Rule = list[Expression]

# <linux/netfilter/nf_tables.h>, <linux/netfilter.h>
INET, IPV4, BRIDGE, IPV6 = 1, 2, 7, 10  # families
PREROUTING, INPUT, FORWARD = 0, 1, 2  # hooks
LINK, NETWORK, TRANSPORT = 0, 1, 2  # headers
MARK, IIF, OIF, NFPROTO, L4PROTO = 3, 4, 5, 15, 16  # what is known of a packet
DROP, ACCEPT = 0, 1
_NEWTABLE, _NEWCHAIN, _NEWRULE, _NEWSET, _NEWSETELEM, _DELSETELEM = (10 << 8 | kind for kind in (0, 3, 6, 9, 12, 14))
_GOTO = -4
_REG_VERDICT, _REG_1, _REG_2 = 0, 1, 2
_REG32_0 = 8  # register 1 is the same as the first four of these, which are of 4 bytes each
_EQUAL, _NOT_EQUAL = 0, 1
_SOCKET_TRANSPARENT = 0
_LOOKUP_INVERTED = 1
_REJECT_TCP_RESET, _REJECT_ICMPX, _PORT_UNREACHABLE = 1, 2, 1

# Kinds of attributes, from the same headers
_TABLE_NAME = 1
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 1, 3, 4, 5, 7
_HOOK_HOOKNUM, _HOOK_PRIORITY = 1, 2
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS = 1, 2, 4
_SET_TABLE, _SET_NAME, _SET_KEY_TYPE, _SET_KEY_LEN, _SET_ID = 1, 2, 4, 5, 10
_SET_ELEM_LIST_TABLE, _SET_ELEM_LIST_SET, _SET_ELEM_LIST_ELEMENTS = 1, 2, 3
_SET_ELEM_KEY = 1
_LIST_ELEM = 1
_DATA_VALUE, _DATA_VERDICT = 1, 2
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2
_EXPR_NAME, _EXPR_DATA = 1, 2
_META_DREG, _META_KEY, _META_SREG = 1, 2, 3
_PAYLOAD_DREG, _PAYLOAD_BASE, _PAYLOAD_OFFSET, _PAYLOAD_LEN = 1, 2, 3, 4
_CMP_SREG, _CMP_OP, _CMP_DATA = 1, 2, 3
_BITWISE_SREG, _BITWISE_DREG, _BITWISE_LEN, _BITWISE_MASK, _BITWISE_XOR = 1, 2, 3, 4, 5
_LOOKUP_SET, _LOOKUP_SREG, _LOOKUP_FLAGS = 1, 2, 5
_SOCKET_KEY, _SOCKET_DREG = 1, 2
_IMMEDIATE_DREG, _IMMEDIATE_DATA = 1, 2
_TPROXY_FAMILY, _TPROXY_REG_ADDR, _TPROXY_REG_PORT = 1, 2, 3
_REJECT_TYPE, _REJECT_ICMP_CODE = 1, 2


def table(name: str, family: int) -> Request:
    return request(f"table {name}", _NEWTABLE, netfilter_header(family), text(_TABLE_NAME, name), flags=CREATE)


def base_chain(name: str, of: str, family: int, hook: int, priority: int, policy: int) -> Request:
    """A chain that packets come to by themselves, at *hook*; *policy* is for those that no rule has an opinion on."""
    where = _number(_HOOK_HOOKNUM, hook), _number(_HOOK_PRIORITY, priority & 0xFFFFFFFF)
    return _chain(
        name, of, family, nested(_CHAIN_HOOK, *where), _number(_CHAIN_POLICY, policy), text(_CHAIN_TYPE, "filter")
    )


def chain(name: str, of: str, family: int) -> Request:
    """A chain that rules lead to."""
    return _chain(name, of, family)


def _chain(name: str, of: str, family: int, *attributes: bytes) -> Request:
    attributes = text(_CHAIN_TABLE, of), text(_CHAIN_NAME, name), *attributes
    return request(f"chain {name}", _NEWCHAIN, netfilter_header(family), *attributes, flags=CREATE)


def rule(in_chain: str, of: str, family: int, expressions: Rule) -> Request:
    attributes = text(_RULE_TABLE, of), text(_RULE_CHAIN, in_chain), nested(_RULE_EXPRESSIONS, *expressions)
    words = " ".join(_name(expression) for expression in expressions)
    what, flags = f"rule in {in_chain} ({words})", NLM_F_CREATE | NLM_F_APPEND
    return request(what, _NEWRULE, netfilter_header(family), *attributes, flags=flags)


def hash_set(name: str, of: str, family: int, number: int, types: Iterable[int], length: int) -> Request:
    """A set of keys of *length* bytes; *types* are for nft to print them. *number* is its own in the transaction."""
    key_type = 0
    for one in types:
        key_type = key_type << 6 | one
    attributes = (
        text(_SET_TABLE, of),
        text(_SET_NAME, name),
        _number(_SET_KEY_TYPE, key_type),
        _number(_SET_KEY_LEN, length),
        _number(_SET_ID, number),
    )
    return request(f"set {name}", _NEWSET, netfilter_header(family), *attributes, flags=CREATE)


def add_elements(name: str, of: str, family: int, keys: Iterable[bytes]) -> Request:
    return _elements(_NEWSETELEM, name, of, family, keys, NLM_F_CREATE)


def remove_elements(name: str, of: str, family: int, keys: Iterable[bytes]) -> Request:
    return _elements(_DELSETELEM, name, of, family, keys, 0)


def _elements(kind: int, name: str, of: str, family: int, keys: Iterable[bytes], flags: int) -> Request:
    elements = [nested(_LIST_ELEM, nested(_SET_ELEM_KEY, attribute(_DATA_VALUE, key))) for key in keys]
    attributes = (
        text(_SET_ELEM_LIST_TABLE, of),
        text(_SET_ELEM_LIST_SET, name),
        nested(_SET_ELEM_LIST_ELEMENTS, *elements),
    )
    return request(f"elements of {name}", kind, netfilter_header(family), *attributes, flags=flags)


def meta(what: int, *, word: int = 0) -> Expression:
    """Load a fact of the packet's into the *word*th 4-byte register."""
    return _expression("meta", _number(_META_KEY, what), _number(_META_DREG, _REG32_0 + word))


def payload(header: int, offset: int, length: int, *, word: int = 0) -> Expression:
    """Load bytes of the packet, from *header*'s *offset*, into registers from the *word*th on; zeros fill the last."""
    return _expression(
        "payload",
        _number(_PAYLOAD_DREG, _REG32_0 + word),
        _number(_PAYLOAD_BASE, header),
        _number(_PAYLOAD_OFFSET, offset),
        _number(_PAYLOAD_LEN, length),
    )


def equals(value: bytes) -> Expression:
    return _compare(_EQUAL, value)


def differs(value: bytes) -> Expression:
    return _compare(_NOT_EQUAL, value)


def _compare(operation: int, value: bytes) -> Expression:
    return _expression("cmp", _number(_CMP_SREG, _REG32_0), _number(_CMP_OP, operation), _value(_CMP_DATA, value))


def masked(mask: bytes) -> Expression:
    return _expression(
        "bitwise",
        _number(_BITWISE_SREG, _REG32_0),
        _number(_BITWISE_DREG, _REG32_0),
        _number(_BITWISE_LEN, len(mask)),
        _value(_BITWISE_MASK, mask),
        _value(_BITWISE_XOR, bytes(len(mask))),
    )


def is_in(name: str) -> Expression:
    """The registers' bytes are a key of the set."""
    return _expression("lookup", text(_LOOKUP_SET, name), _number(_LOOKUP_SREG, _REG32_0))


def is_not_in(name: str) -> Expression:
    flags = _number(_LOOKUP_FLAGS, _LOOKUP_INVERTED)
    return _expression("lookup", text(_LOOKUP_SET, name), _number(_LOOKUP_SREG, _REG32_0), flags)


def is_link(which: int, index: int) -> Rule:
    """The packet came in by (IIF) or goes out by (OIF) the link with this index."""
    return [meta(which), equals(struct.pack("=I", index))]


def is_protocol(number: int) -> Rule:
    """TCP, UDP … by number, behind whatever extension headers."""
    return [meta(L4PROTO), equals(bytes((number,)))]


def is_ours() -> Rule:
    """The packet belongs to a connected transparent socket."""
    load = _expression("socket", _number(_SOCKET_KEY, _SOCKET_TRANSPARENT), _number(_SOCKET_DREG, _REG32_0))
    return [load, equals(b"\1")]


def set_mark(mark: int) -> Rule:
    store = _expression("meta", _number(_META_KEY, MARK), _number(_META_SREG, _REG32_0))
    return [_load(_REG32_0, struct.pack("=I", mark)), store]


def to_listener(family: int, address: bytes, port: int) -> Rule:
    """The packet is for the transparent listener at *address* and *port*; without one the rule ends here."""
    hand_over = _expression(
        "tproxy",
        _number(_TPROXY_FAMILY, family),
        _number(_TPROXY_REG_ADDR, _REG_1),
        _number(_TPROXY_REG_PORT, _REG_2),
    )
    return [_load(_REG_1, address), _load(_REG_2, struct.pack(">H", port)), hand_over]


def accept() -> Expression:
    return _verdict(_number(_VERDICT_CODE, ACCEPT))


def drop() -> Expression:
    return _verdict(_number(_VERDICT_CODE, DROP))


def goto(name: str) -> Expression:
    return _verdict(_number(_VERDICT_CODE, _GOTO & 0xFFFFFFFF), text(_VERDICT_CHAIN, name))


def reset() -> Expression:
    """Drop, and answer with a TCP reset."""
    return _reject(_REJECT_TCP_RESET, 0)


def unreachable() -> Expression:
    """Drop, and answer that nobody listens."""
    return _reject(_REJECT_ICMPX, _PORT_UNREACHABLE)


def _reject(kind: int, code: int) -> Expression:
    return _expression("reject", _number(_REJECT_TYPE, kind), attribute(_REJECT_ICMP_CODE, bytes((code,))))


def _verdict(*attributes: bytes) -> Expression:
    data = nested(_IMMEDIATE_DATA, nested(_DATA_VERDICT, *attributes))
    return _expression("immediate", _number(_IMMEDIATE_DREG, _REG_VERDICT), data)


def _load(register: int, value: bytes) -> Expression:
    return _expression("immediate", _number(_IMMEDIATE_DREG, register), _value(_IMMEDIATE_DATA, value))


def _value(kind: int, value: bytes) -> bytes:
    return nested(kind, attribute(_DATA_VALUE, value))


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value))


def _expression(name: str, *attributes: bytes) -> Expression:
    return nested(_LIST_ELEM, text(_EXPR_NAME, name), nested(_EXPR_DATA, *attributes))


def _name(expression: Expression) -> str:
    """_EXPR_NAME, which is the first attribute in it, behind two headers of four bytes."""
    return expression[8:].partition(b"\0")[0].decode()
