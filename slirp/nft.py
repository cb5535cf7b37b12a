"""The words of an nftables rule, and the requests that make tables, chains, sets and rules, as pyroute2 encodes them.

A rule is a list of expressions that the kernel runs one after the other on registers: load something into one, compare
it or look it up in a set, and where nothing has said no, give a verdict. `nft --debug=netlink` shows the same language.

Encoding an expression takes 0.1 ms, and most occur several times in our rules, so each is encoded once and kept.
"""

import functools
import struct
from collections.abc import Iterable

from pyroute2.netlink import NLM_F_APPEND, NLM_F_CREATE
from pyroute2.netlink.nfnetlink.nftsocket import (
    nft_chain_msg,
    nft_contains_expr,
    nft_rule_msg,
    nft_set_elem_list_msg,
    nft_set_msg,
    nft_table_msg,
)

from slirp.netlink import CREATE, Request, request

Expression = bytes  # an attribute NFTA_LIST_ELEM
Rule = list[Expression]
_Value = dict[str, object]  # as pyroute2 takes it

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
_LIST_ELEMENT = 1
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
_REJECT_TCP_RESET, _REJECT_ICMPX, _PORT_UNREACHABLE = 1, 2, 1


class _Encoded(nft_rule_msg):  # type: ignore[misc]
    """A rule's message whose expressions are encoded already."""

    nla_map = (
        ("NFTA_RULE_UNSPEC", "none"),
        ("NFTA_RULE_TABLE", "asciiz"),
        ("NFTA_RULE_CHAIN", "asciiz"),
        ("NFTA_RULE_HANDLE", "be64"),
        ("NFTA_RULE_EXPRESSIONS", "cdata"),
    )


def table(name: str, family: int) -> Request:
    return request(
        f"table {name}", _NEWTABLE, nft_table_msg(), [("NFTA_TABLE_NAME", name)], {"nfgen_family": family}, flags=CREATE
    )


def base_chain(name: str, of: str, family: int, hook: int, priority: int, policy: int) -> Request:
    """A chain that packets come to by themselves, at *hook*; *policy* is for those that no rule has an opinion on."""
    where = [("NFTA_HOOK_HOOKNUM", hook), ("NFTA_HOOK_PRIORITY", priority)]
    attributes: list[tuple[str, object]] = [
        ("NFTA_CHAIN_TABLE", of),
        ("NFTA_CHAIN_NAME", name),
        ("NFTA_CHAIN_HOOK", {"attrs": where}),
        ("NFTA_CHAIN_POLICY", policy),
        ("NFTA_CHAIN_TYPE", "filter"),
    ]
    return request(f"chain {name}", _NEWCHAIN, nft_chain_msg(), attributes, {"nfgen_family": family}, flags=CREATE)


def chain(name: str, of: str, family: int) -> Request:
    """A chain that rules lead to."""
    attributes: list[tuple[str, object]] = [("NFTA_CHAIN_TABLE", of), ("NFTA_CHAIN_NAME", name)]
    return request(f"chain {name}", _NEWCHAIN, nft_chain_msg(), attributes, {"nfgen_family": family}, flags=CREATE)


def rule(in_chain: str, of: str, family: int, expressions: Rule) -> Request:
    attributes: list[tuple[str, object]] = [
        ("NFTA_RULE_TABLE", of),
        ("NFTA_RULE_CHAIN", in_chain),
        ("NFTA_RULE_EXPRESSIONS", b"".join(expressions)),
    ]
    flags = NLM_F_CREATE | NLM_F_APPEND
    words = " ".join(_name(expression) for expression in expressions)
    return request(
        f"rule in {in_chain} ({words})", _NEWRULE, _Encoded(), attributes, {"nfgen_family": family}, flags=flags
    )


def hash_set(name: str, of: str, family: int, number: int, types: Iterable[int], length: int) -> Request:
    """A set of keys of *length* bytes; *types* are for nft to print them. *number* is its own in the transaction."""
    key_type = 0
    for one in types:
        key_type = key_type << 6 | one
    attributes: list[tuple[str, object]] = [
        ("NFTA_SET_TABLE", of),
        ("NFTA_SET_NAME", name),
        ("NFTA_SET_KEY_TYPE", key_type),
        ("NFTA_SET_KEY_LEN", length),
        ("NFTA_SET_ID", number),
    ]
    return request(f"set {name}", _NEWSET, nft_set_msg(), attributes, {"nfgen_family": family}, flags=CREATE)


def add_elements(name: str, of: str, family: int, keys: Iterable[bytes]) -> Request:
    return _elements(_NEWSETELEM, name, of, family, keys, NLM_F_CREATE)


def remove_elements(name: str, of: str, family: int, keys: Iterable[bytes]) -> Request:
    return _elements(_DELSETELEM, name, of, family, keys, 0)


def _elements(kind: int, name: str, of: str, family: int, keys: Iterable[bytes], flags: int) -> Request:
    elements = [{"attrs": [("NFTA_SET_ELEM_KEY", {"attrs": [("NFTA_DATA_VALUE", key)]})]} for key in keys]
    attributes: list[tuple[str, object]] = [
        ("NFTA_SET_ELEM_LIST_TABLE", of),
        ("NFTA_SET_ELEM_LIST_SET", name),
        ("NFTA_SET_ELEM_LIST_ELEMENTS", elements),
    ]
    return request(
        f"elements of {name}", kind, nft_set_elem_list_msg(), attributes, {"nfgen_family": family}, flags=flags
    )


@functools.cache
def meta(what: int, *, word: int = 0) -> Expression:
    """Load a fact of the packet's into the *word*th 4-byte register."""
    return _expression("meta", key=what, dreg=_REG32_0 + word)


@functools.cache
def payload(header: int, offset: int, length: int, *, word: int = 0) -> Expression:
    """Load bytes of the packet, from *header*'s *offset*, into registers from the *word*th on; zeros fill the last."""
    return _expression("payload", dreg=_REG32_0 + word, base=header, offset=offset, len=length)


@functools.cache
def equals(value: bytes) -> Expression:
    return _expression("cmp", sreg=_REG32_0, op=_EQUAL, data=_value(value))


@functools.cache
def differs(value: bytes) -> Expression:
    return _expression("cmp", sreg=_REG32_0, op=_NOT_EQUAL, data=_value(value))


@functools.cache
def masked(mask: bytes) -> Expression:
    zero = _value(bytes(len(mask)))
    return _expression("bitwise", sreg=_REG32_0, dreg=_REG32_0, len=len(mask), mask=_value(mask), xor=zero)


@functools.cache
def is_in(name: str) -> Expression:
    """The registers' bytes are a key of the set."""
    return _expression("lookup", set=name, sreg=_REG32_0)


@functools.cache
def is_not_in(name: str) -> Expression:
    return _expression("lookup", set=name, sreg=_REG32_0, flags=("NFT_LOOKUP_F_INV",))


def is_link(which: int, index: int) -> Rule:
    """The packet came in by (IIF) or goes out by (OIF) the link with this index."""
    return [meta(which), equals(struct.pack("=I", index))]


def is_protocol(number: int) -> Rule:
    """TCP, UDP … by number, behind whatever extension headers."""
    return [meta(L4PROTO), equals(bytes((number,)))]


def is_ours() -> Rule:
    """The packet belongs to a connected transparent socket."""
    return [_expression("socket", key=_SOCKET_TRANSPARENT, dreg=_REG32_0), equals(b"\1")]


def set_mark(mark: int) -> Rule:
    number = _value(struct.pack("=I", mark))
    load = _expression("immediate", dreg=_REG32_0, data=number)
    return [load, _expression("meta", key=MARK, sreg=_REG32_0)]


def to_listener(family: int, address: bytes, port: int) -> Rule:
    """The packet is for the transparent listener at *address* and *port*; without one the rule ends here."""
    return [
        _expression("immediate", dreg=_REG_1, data=_value(address)),
        _expression("immediate", dreg=_REG_2, data=_value(struct.pack(">H", port))),
        _expression("tproxy", family=family, reg_addr=_REG_1, reg_port=_REG_2),
    ]


@functools.cache
def accept() -> Expression:
    return _verdict([("NFTA_VERDICT_CODE", ACCEPT)])


@functools.cache
def drop() -> Expression:
    return _verdict([("NFTA_VERDICT_CODE", DROP)])


@functools.cache
def goto(name: str) -> Expression:
    return _verdict([("NFTA_VERDICT_CODE", _GOTO), ("NFTA_VERDICT_CHAIN", name)])


@functools.cache
def reset() -> Expression:
    """Drop, and answer with a TCP reset."""
    return _expression("reject", type=_REJECT_TCP_RESET, icmp_code=0)


@functools.cache
def unreachable() -> Expression:
    """Drop, and answer that nobody listens."""
    return _expression("reject", type=_REJECT_ICMPX, icmp_code=_PORT_UNREACHABLE)


def _verdict(attributes: list[tuple[str, object]]) -> Expression:
    data = {"attrs": [("NFTA_DATA_VERDICT", {"attrs": attributes})]}
    return _expression("immediate", dreg=_REG_VERDICT, data=data)


def _value(value: bytes) -> _Value:
    return {"attrs": [("NFTA_DATA_VALUE", value)]}


def _expression(name: str, **attributes: object) -> Expression:
    data = [(f"NFTA_{name.upper()}_{key.upper()}", value) for key, value in attributes.items()]
    message = nft_contains_expr.nft_expr()
    message.setvalue({"attrs": [("NFTA_EXPR_NAME", name), ("NFTA_EXPR_DATA", {"attrs": data})]})
    message.encode()
    content = bytes(message.data[_ATTRIBUTE.size : message.length])
    return _ATTRIBUTE.pack(message.length, _LIST_ELEMENT) + content + bytes(-message.length % 4)


def _name(expression: Expression) -> str:
    """NFTA_EXPR_NAME, which is the first attribute in it."""
    return expression[2 * _ATTRIBUTE.size :].partition(b"\0")[0].decode()
