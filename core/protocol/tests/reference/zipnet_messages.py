#!/usr/bin/env python3
"""The second half of the reference: messages, signatures, and the machine of the committee.

    python3 zipnet_messages.py [directory of the vectors [directory of the vectors of links]]
    python3 zipnet_messages.py audit FILE           what `zipnet parts` has written of a round

Like the first half it is written from docs/protocol.md, uses the standard library only and shares no code with the crate.
It reads and writes every message, verifies every signature, applies a log entry by entry, and audits records: whoever has
the parts of a round finds out with `audit` whether the record is what they make.
"""

import hashlib
import json
import pathlib
import sys

from zipnet_reference import P, broadcast_slots, derive, keyed, merkle_root, same, u32, u64, unhex, vector, xor


class Refused(Exception):
    """Bytes or values that the page does not allow."""


def need(condition, what):
    if not condition:
        raise Refused(what)


# --- ed25519, from RFC 8032, and strict --------------------------------------------------------------------------------

L = 2 ** 252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)
NEUTRAL = (0, 1, 1, 0)


def add(one, other):
    (x1, y1, z1, t1), (x2, y2, z2, t2) = one, other
    a, b = (y1 - x1) * (y2 - x2) % P, (y1 + x1) * (y2 + x2) % P
    c, d = 2 * t1 * t2 * D % P, 2 * z1 * z2 % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def times(scalar, point):
    total = NEUTRAL
    while scalar:
        if scalar & 1:
            total = add(total, point)
        point = add(point, point)
        scalar >>= 1
    return total


def equal(one, other):
    (x1, y1, z1, _), (x2, y2, z2, _) = one, other
    return (x1 * z2 - x2 * z1) % P == 0 and (y1 * z2 - y2 * z1) % P == 0


def decompress(data):
    """The point, or None if the bytes are not the canonical form of one."""
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number & (1 << 255) - 1
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT_OF_MINUS_ONE % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


BASE = decompress((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def verify(peer, digest, signature):
    """Of a digest of 32 bytes. Refuses points of small order, other forms than the canonical one, and scalars that are
    not reduced."""
    key, point, scalar = decompress(peer), decompress(signature[:32]), int.from_bytes(signature[32:], "little")
    if key is None or point is None or scalar >= L:
        return False
    if any(equal(times(8, it), NEUTRAL) for it in (key, point)):
        return False
    challenge = int.from_bytes(hashlib.sha512(signature[:32] + peer + digest).digest(), "little") % L
    return equal(times(scalar, BASE), add(point, times(challenge, key)))


# --- The wire format, section 7 ----------------------------------------------------------------------------------------
#
# A type is a pair of functions: one takes a value off the front of bytes, the other gives the bytes of a value.

def fixed(length):
    def read(data):
        need(len(data) >= length, "it ends early")
        return data[:length], data[length:]
    return read, bytes


def number(bits):
    def read(data):
        value = 0
        for used, byte in enumerate(data):
            value |= (byte & 0x7F) << (7 * used)
            if byte < 0x80:
                need(value < 1 << bits, "a number is too large")
                need(byte or not used, "a number has more bytes than it needs")
                return value, data[used + 1:]
            need(7 * used < bits, "a number is too large")
        raise Refused("it ends early")

    def write(value):
        out = bytearray()
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes(out) + bytes([value])
    return read, write


def below(limit):
    """One of several: a number."""
    read_number, write = number(32)

    def read(data):
        value, rest = read_number(data)
        need(value < limit, "there is no such kind")
        return value, rest
    return read, write


def optional(kind):
    def read(data):
        some, data = fixed(1)[0](data)
        need(some in (b"\0", b"\1"), "neither a value nor none")
        return kind[0](data) if some == b"\1" else (None, data)
    return read, lambda value: b"\0" if value is None else b"\1" + kind[1](value)


def listed(kind, most):
    def read(data):
        count, data = NUMBER[0](data)
        need(count <= most, "a list is too long")
        values = []
        for _ in range(count):
            value, data = kind[0](data)
            values.append(value)
        return values, data
    return read, lambda values: NUMBER[1](len(values)) + b"".join(kind[1](value) for value in values)


def rising(kind, field):
    """A list whose values have this field in rising order, each once."""
    read_list, write = listed(kind, 256)

    def read(data):
        values, data = read_list(data)
        need(all(a[field] < b[field] for a, b in zip(values, values[1:])), "a list is not in its order")
        return values, data
    return read, write


def read_body(data):
    length, data = NUMBER[0](data)
    need(length <= 1 << 26, "a vector is too long")
    return fixed(length)[0](data)


def read_bitmap(data):
    places, data = SHORT[0](data)
    bits, data = read_body(data)
    need(places <= 1 << 18, "a bitmap has too many places")
    need(len(bits) <= (places + 7) // 8, "a bitmap has more bytes than its places need")
    need(not bits or bits[-1] != 0, "a bitmap ends with a zero byte")
    whole = bits.ljust((places + 7) // 8, b"\0")
    need(places % 8 == 0 or whole[-1] >> places % 8 == 0, "a bitmap has a bit behind its last place")
    return (places, whole), data


NUMBER, SHORT, BOOL = number(64), number(32), below(2)
ID, SIGNATURE, ROLE, STANDING = fixed(32), fixed(64), below(3), below(3)
BODY = read_body, lambda value: NUMBER[1](len(value)) + value
BITMAP = read_bitmap, lambda value: SHORT[1](value[0]) + BODY[1](value[1].rstrip(b"\0"))


def ones(bitmap):
    places, bits = bitmap
    return [place for place in range(places) if bits[place // 8] >> place % 8 & 1]


def record_of(name, *fields):
    """Fields one after the other, by name."""
    def read(data):
        value = {"": name}
        for field, kind in fields:
            value[field], data = kind[0](data)
        if name in DIGESTS:
            DIGESTED.append(value)
        return value, data
    return read, lambda value: b"".join(kind[1](value[field]) for field, kind in fields)


def choice(*kinds):
    """A kind byte, then the fields of that kind."""
    read_kind, write_kind = below(len(kinds))

    def read(data):
        kind, data = read_kind(data)
        value, rest = kinds[kind][0](data)
        return (kind, value), rest
    return read, lambda value: write_kind(value[0]) + kinds[value[0]][1](value[1])


FLOORS = record_of("floors", ("participants", SHORT), ("servers", optional(SHORT)))
BOOT = record_of("boot", ("key", ID), ("signature", SIGNATURE), ("quote", ID))
BUNDLE = record_of("bundle", ("peer", ID), ("role", ROLE), ("instance", ID), ("epoch", NUMBER), ("round_key", ID),
                   ("floors", optional(FLOORS)), ("boot", optional(BOOT)), ("signature", SIGNATURE))
ROSTERED = record_of("rostered", ("peer", ID), ("epoch", NUMBER), ("round_key", ID))
PREVIOUS = record_of("previous", ("round", NUMBER), ("record", ID), ("state", ID))
HEADER = record_of("header", ("log", ID), ("round", NUMBER), ("nonce", ID), ("group", ID),
                   ("num_slots", SHORT), ("slot_bytes", SHORT), ("tag_len", SHORT), ("previous", PREVIOUS),
                   ("servers", listed(ROSTERED, 256)), ("version", NUMBER), ("clients", SHORT), ("root", ID),
                   ("least", SHORT), ("aggregator", ID))
HEADER_SIGNATURE = record_of("header signature", ("log", ID), ("round", NUMBER), ("header", ID), ("server", ID),
                             ("refused", BITMAP), ("signature", SIGNATURE))
ENVELOPE = record_of("envelope", ("log", ID), ("round", NUMBER), ("header", ID), ("epoch", NUMBER), ("body", BODY),
                     ("signature", SIGNATURE))
AGGREGATE = record_of("aggregate", ("log", ID), ("round", NUMBER), ("header", ID), ("participants", BITMAP),
                      ("body", BODY), ("signature", SIGNATURE))
PARTIAL = record_of("partial", ("log", ID), ("round", NUMBER), ("header", ID), ("aggregate", ID), ("server", ID),
                    ("body", BODY), ("signature", SIGNATURE))
RECORD = record_of("record", ("log", ID), ("round", NUMBER), ("header", ID), ("participants", BITMAP),
                   ("servers", listed(ID, 256)), ("broadcast", BODY), ("previous", ID), ("aggregate", ID),
                   ("partials", listed(ID, 256)), ("index", NUMBER), ("chain", ID))
RECORD_SIGNATURE = record_of("record signature", ("log", ID), ("round", NUMBER), ("record", ID), ("server", ID),
                             ("signature", SIGNATURE))
DISCLAIMER = record_of("disclaimer", ("log", ID), ("round", NUMBER), ("header", ID), ("server", ID),
                       ("signature", SIGNATURE))
ANNOUNCEMENT = record_of("announcement", ("log", ID), ("server", ID), ("epoch", NUMBER), ("counter", NUMBER),
                         ("standing", STANDING), ("signature", SIGNATURE))
TESTIMONY = record_of("testimony", ("log", ID), ("server", ID), ("epoch", NUMBER), ("witness", ID),
                      ("signature", SIGNATURE))
APPROVAL = record_of("approval", ("log", ID), ("bundle", BUNDLE), ("server", ID), ("signature", SIGNATURE))
GONE = record_of("gone", ("client", ID), ("epoch", NUMBER))
BATCH = record_of("batch", ("log", ID), ("counter", NUMBER), ("register", listed(BUNDLE, 1024)),
                  ("expire", listed(GONE, 1024)), ("signature", SIGNATURE))
REFUSAL = record_of("refusal", ("log", ID), ("server", ID), ("counter", NUMBER), ("client", ID), ("epoch", NUMBER),
                    ("refuse", BOOL), ("signature", SIGNATURE))
PROOF = record_of("proof", ("place", SHORT), ("bundle", BUNDLE), ("path", listed(ID, 18)))

REASONS = (
    "wrong-log log-started wrong-group wrong-instance params-mismatch wrong-round wrong-header wrong-aggregate "
    "wrong-registry wrong-previous wrong-length wrong-role malformed bad-signature weak-key stale-epoch stale-counter "
    "duplicate equivocation not-registered not-voter not-in-roster unsorted-roster wrong-roster roster-too-small "
    "below-floor too-few-participants not-live no-round aggregate-in refused-client not-aggregator "
    "aggregator-not-configured unknown-record retired barred too-many foreign-key already-promised not-in-registry "
    "pin-missing stopping still-alive").split()
REASON = below(len(REASONS))

COMMAND = choice(
    record_of("start log", ("log", ID)), HEADER, HEADER_SIGNATURE, AGGREGATE, PARTIAL, RECORD_SIGNATURE,
    record_of("register server", ("bundle", BUNDLE), ("announcement", ANNOUNCEMENT)), ANNOUNCEMENT, ANNOUNCEMENT,
    TESTIMONY, APPROVAL, BATCH, REFUSAL)
SIGNATURES = listed(HEADER_SIGNATURE, 256)
MESSAGE = choice(
    COMMAND, BUNDLE, record_of("bundle refused", ("reason", REASON), ("last", optional(BUNDLE))),
    record_of("live", ("header", HEADER), ("signatures", SIGNATURES)),
    record_of("live for", ("header", HEADER), ("signatures", SIGNATURES), ("place", optional(PROOF))),
    ENVELOPE, AGGREGATE, record_of("applied", ("round", NUMBER), ("header", ID)),
    record_of("registry", ("log", ID), ("version", NUMBER), ("counter", NUMBER), ("clients", listed(BUNDLE, 1 << 18))),
    record_of("registry changed", ("version", NUMBER), ("batch", BATCH)), record_of("registry wanted"),
    record_of("record and signatures", ("record", RECORD), ("signatures", listed(RECORD_SIGNATURE, 256))),
    record_of("record signed", ("signatures", listed(RECORD_SIGNATURE, 256))),
    record_of("records wanted", ("from", NUMBER)), record_of("testify wanted", ("server", ID)),
    record_of("retired", ("announcements", listed(ANNOUNCEMENT, 256))),
    record_of("disclaimed", ("disclaimers", listed(DISCLAIMER, 256))),
    record_of("declined", ("round", NUMBER), ("header", ID), ("reason", REASON)),
    record_of("turnout", ("round", NUMBER), ("header", ID), ("envelopes", SHORT), ("absent", SHORT),
              ("declined", rising(record_of("decliners", ("reason", REASON), ("clients", SHORT)), "reason"))))


def whole(kind, data):
    """A value whose bytes these are, all of them."""
    value, rest = kind[0](data)
    need(not rest, "bytes stand behind its end")
    return value


def decode(kind, data):
    need(len(data) >= 2, "it has no version and kind")
    need(data[0] == 1, "another version")
    value = whole(kind, data[1:])
    same("the only encoding", b"\1" + kind[1](value), data.hex())
    return value


# --- Digests and signatures, section 6 ---------------------------------------------------------------------------------

def place(value):
    return value["log"] + u64(value["round"]) + value["header"]


def bits(bitmap):
    return u32(bitmap[0]) + bitmap[1]


def count(values):
    return u64(len(values))


def bundle_fields(it):
    floors, boot = it["floors"], it["boot"]
    out = it["peer"] + bytes([it["role"]]) + it["instance"] + u64(it["epoch"]) + it["round_key"]
    if floors is None:
        out += b"\0"
    elif floors["servers"] is None:
        out += b"\1" + u32(floors["participants"])
    else:
        out += b"\2" + u32(floors["participants"]) + u32(floors["servers"])
    return out + (b"\0" if boot is None else b"\1" + boot["key"] + boot["signature"] + boot["quote"])


def header_fields(it):
    previous = it["previous"]
    roster = b"".join(s["peer"] + u64(s["epoch"]) + s["round_key"] for s in it["servers"])
    return (it["log"] + u64(it["round"]) + it["nonce"] + it["group"] + u32(it["num_slots"]) + u32(it["slot_bytes"])
            + u32(it["tag_len"]) + u64(previous["round"]) + previous["record"] + previous["state"]
            + count(it["servers"]) + roster + u64(it["version"]) + u32(it["clients"]) + it["root"] + u32(it["least"])
            + it["aggregator"])


def record_fields(it):
    return (place(it) + bits(it["participants"]) + count(it["servers"]) + b"".join(it["servers"])
            + vector(it["broadcast"]) + it["previous"] + it["aggregate"] + count(it["partials"])
            + b"".join(it["partials"]) + u64(it["index"]) + it["chain"])


def batch_fields(it):
    return (it["log"] + u64(it["counter"]) + count(it["register"]) + b"".join(digest(b) for b in it["register"])
            + count(it["expire"]) + b"".join(gone["client"] + u64(gone["epoch"]) for gone in it["expire"]))


# Per kind of value: context, fields, and who signs: the name of a field, of somebody who is told apart, or nobody.
DIGESTS = {
    "bundle": ("bundle", bundle_fields, "peer"),
    "header": ("round header", header_fields, None),
    "header signature": ("header signature", lambda it: place(it) + it["server"] + bits(it["refused"]), "server"),
    "envelope": ("envelope", lambda it: place(it) + u64(it["epoch"]) + vector(it["body"]), "client"),
    "aggregate": ("aggregate", lambda it: place(it) + bits(it["participants"]) + vector(it["body"]), "aggregator"),
    "partial": ("partial", lambda it: place(it) + it["aggregate"] + it["server"] + vector(it["body"]), "server"),
    "record": ("broadcast record", record_fields, None),
    "record signature": ("record signature",
                         lambda it: it["log"] + u64(it["round"]) + it["record"] + it["server"], "server"),
    "disclaimer": ("disclaimer", lambda it: place(it) + it["server"], "server"),
    "announcement": ("server announcement",
                     lambda it: it["log"] + it["server"] + u64(it["epoch"]) + u64(it["counter"])
                     + bytes([it["standing"]]), "server"),
    "testimony": ("dead server testimony",
                  lambda it: it["log"] + it["server"] + u64(it["epoch"]) + it["witness"], "witness"),
    "approval": ("aggregator approval", lambda it: it["log"] + digest(it["bundle"]) + it["server"], "server"),
    "batch": ("client batch", batch_fields, "aggregator"),
    "refusal": ("client refusal",
                lambda it: it["log"] + it["server"] + u64(it["counter"]) + it["client"] + u64(it["epoch"])
                + bytes([it["refuse"]]), "server"),
    "peer entry": ("peer entry",
                   lambda it: it["peer"] + it["instance"] + bytes([it["role"]]) + u64(it["sequence"])
                   + (b"\0" if it["address"] is None else b"\1" + vector(it["address"])), "peer"),
}

# The values with a digest that were read, in the order in which they ended.
DIGESTED = []


def digest(value):
    context, fields, _ = DIGESTS[value[""]]
    return derive("zipnet v1 " + context, fields(value))


def is_signed(value, **others):
    signer = DIGESTS[value[""]][2]
    who = value[signer] if signer in value else others[signer]
    return verify(who, digest(value), value["signature"])


# --- Auditing a record -------------------------------------------------------------------------------------------------

def live(header, signatures):
    """The clients that some server refuses, if every server of the roster has signed exactly this header."""
    roster = [server["peer"] for server in header["servers"]]
    need(roster and roster == sorted(set(roster)), "the roster is empty or not in rising order")
    need([signed["server"] for signed in signatures] == roster, "the signatures are not those of the roster")
    refused = set()
    for signed in signatures:
        need(place(signed) == header["log"] + u64(header["round"]) + digest(header), "another header was signed")
        need(signed["refused"][0] == header["clients"], "the refusals are over another client set")
        need(is_signed(signed), "a header signature does not verify")
        refused |= set(ones(signed["refused"]))
    return refused


def chain(start, entries):
    for index, entry in entries:
        start = derive("zipnet v1 log chain", start + u64(index) + vector(entry))
    return start


def audit(record, signatures, header, header_signatures, aggregate, partials, entries):
    """Whether a record is what these parts make: `entries` are all (index, bytes) of commands after the record before it.
    Needs nobody's word but that of whoever has signed."""
    roster = [server["peer"] for server in header["servers"]]
    refused = live(header, header_signatures)
    at = header["log"] + u64(header["round"]) + digest(header)
    need(place(record) == at and record["servers"] == roster, "the record is of another header")
    need(place(aggregate) == at and is_signed(aggregate, aggregator=header["aggregator"]), "the aggregate is not good")
    participants = ones(aggregate["participants"])
    need(aggregate["participants"] == record["participants"], "other participants")
    need(record["participants"][0] == header["clients"], "the participants are over another client set")
    need(len(participants) >= header["least"] and not refused & set(participants), "not these participants")
    need(record["aggregate"] == digest(aggregate), "another aggregate")
    need([partial["server"] for partial in partials] == roster, "the partials are not those of the roster")
    for partial in partials:
        need(place(partial) == at and partial["aggregate"] == record["aggregate"], "a partial of something else")
        need(is_signed(partial), "a partial's signature does not verify")
    need(record["partials"] == [digest(partial) for partial in partials], "other partials")
    bodies = [aggregate["body"]] + [partial["body"] for partial in partials]
    length = header["num_slots"] * header["slot_bytes"]
    need(all(len(body) == length for body in bodies), "a vector of another length")
    need(record["broadcast"] == xor(bodies), "the broadcast is not what its parts make")
    need(record["previous"] == header["previous"]["record"], "another record before it")
    need(entries[-1][0] == record["index"], "made by another entry")
    need(record["chain"] == chain(record["previous"], entries), "the entries are not those of the log")
    for signed in signatures:
        need((signed["log"], signed["round"], signed["record"]) == (record["log"], record["round"], digest(record)),
             "another record was signed")
        need(signed["server"] in roster and is_signed(signed), "a record signature does not verify")
    return sorted({signed["server"] for signed in signatures}) == roster


# --- The machine, section 9 --------------------------------------------------------------------------------------------

def mapped(key, kind):
    """A map: pairs of key and value, keys rising. States are only written here."""
    return None, lambda value: NUMBER[1](len(value)) + b"".join(key[1](k) + kind[1](value[k]) for k in sorted(value))


# A set: its elements, rising.
SET = None, lambda value: NUMBER[1](len(value)) + b"".join(sorted(value))
SERVER = record_of("server", ("bundle", BUNDLE), ("counter", NUMBER), ("standing", STANDING), ("testimonies", SET),
                   ("refusal_counter", NUMBER))
CANDIDATE = record_of("candidate", ("bundle", BUNDLE), ("approvals", SET))
REGISTRY = record_of("clients", ("version", NUMBER), ("counter", NUMBER), ("bundles", listed(BUNDLE, 1 << 18)))
APPLIED = record_of("applied aggregate", ("digest", ID), ("participants", BITMAP), ("body", BODY))
OPEN = record_of("open round", ("header", HEADER), ("digest", ID), ("clients", REGISTRY),
                 ("signatures", mapped(ID, HEADER_SIGNATURE)), ("refused", optional(BITMAP)),
                 ("aggregate", optional(APPLIED)), ("partials", mapped(ID, ID)))
KEPT = record_of("kept record", ("record", RECORD), ("digest", ID), ("signatures", mapped(ID, RECORD_SIGNATURE)))

# The state, in the order in which snapshots hold it.
STATE_FIELDS = [
    ("log", optional(ID)), ("voters", SET), ("servers", mapped(ID, SERVER)), ("retired", SET),
    ("farewells", listed(ANNOUNCEMENT, 16)), ("aggregator", optional(BUNDLE)), ("replaced", mapped(ID, BUNDLE)),
    ("candidates", mapped(ID, CANDIDATE)), ("clients", REGISTRY), ("refusals", mapped(ID, SET)),
    ("barred", mapped(ID, mapped(ID, NUMBER))), ("opened", NUMBER), ("open", optional(OPEN)), ("previous", PREVIOUS),
    ("records", listed(KEPT, 8)), ("chain", ID)]


class Machine:
    """Applies the commands of an honest log: what an honest machine refuses is not judged here, but for what a test has."""

    def __init__(self, voters):
        empty = {"version": 0, "counter": 0, "bundles": []}
        self.state = {
            "log": None, "voters": voters, "servers": {}, "retired": [], "farewells": [], "aggregator": None,
            "replaced": {}, "candidates": {}, "clients": empty, "refusals": {}, "barred": {}, "opened": 0, "open": None,
            "previous": {"round": 0, "record": bytes(32), "state": bytes(32)}, "records": [], "chain": bytes(32)}

    def enter(self, index, entry):
        """Gives the record that the entry has made, if it made one."""
        self.state["chain"] = chain(self.state["chain"], [(index, entry)])
        try:
            kind, value = decode(COMMAND, entry)
        except Refused:
            return None
        apply = (self.start, self.open, self.sign, self.aggregate, None, self.sign_record, self.register, None,
                 self.leave, self.testify, self.approve, self.change, self.refuse)[kind]
        return self.partial(index, value) if kind == 4 else apply(value)

    def start(self, value):
        if self.state["log"] is None:
            self.state["log"] = value["log"]

    def register(self, value):
        bundle, announcement = value["bundle"], value["announcement"]
        need(is_signed(bundle) and is_signed(announcement), "a registration does not verify")
        self.state["servers"][bundle["peer"]] = {
            "bundle": bundle, "counter": announcement["counter"], "standing": 0, "testimonies": [],
            "refusal_counter": 0}

    def leave(self, announcement):
        need(is_signed(announcement), "a farewell does not verify")
        self.state["servers"][announcement["server"]].update(counter=announcement["counter"], standing=2)
        self.state["farewells"].append(announcement)

    def testify(self, testimony):
        need(is_signed(testimony), "a testimony does not verify")
        self.state["servers"][testimony["server"]]["testimonies"].append(testimony["witness"])

    def approve(self, approval):
        need(is_signed(approval) and is_signed(approval["bundle"]), "an approval does not verify")
        bundle, candidates = approval["bundle"], self.state["candidates"]
        candidate = candidates.setdefault(bundle["peer"], {"bundle": bundle, "approvals": []})
        candidate["approvals"].append(approval["server"])
        if 2 * len(candidate["approvals"]) > len(self.state["voters"]):
            before = self.state["aggregator"]
            self.state.update(aggregator=bundle, candidates={})
            if before is not None:
                self.state["replaced"][before["peer"]] = before

    def change(self, batch):
        need(is_signed(batch, aggregator=self.state["aggregator"]["peer"]), "a batch does not verify")
        need(all(is_signed(bundle) for bundle in batch["register"]), "a client's bundle does not verify")
        gone = [(each["client"], each["epoch"]) for each in batch["expire"]]
        clients = self.state["clients"]
        kept = {it["peer"]: it for it in clients["bundles"] if (it["peer"], it["epoch"]) not in gone}
        kept.update((bundle["peer"], bundle) for bundle in batch["register"])
        self.state["clients"] = {"version": clients["version"] + 1, "counter": batch["counter"],
                                 "bundles": [kept[peer] for peer in sorted(kept)]}

    def refuse(self, refusal):
        need(is_signed(refusal) and refusal["refuse"], "a refusal does not verify")
        self.state["servers"][refusal["server"]]["refusal_counter"] = refusal["counter"]
        self.state["refusals"].setdefault(refusal["client"], []).append(refusal["server"])
        self.state["barred"].setdefault(refusal["client"], {})[refusal["server"]] = self.state["opened"] + 16
        clients = self.state["clients"]
        left = [bundle for bundle in clients["bundles"] if bundle["peer"] != refusal["client"]]
        self.state["clients"] = dict(clients, version=clients["version"] + 1, bundles=left)

    def client_set(self):
        clients = self.state["clients"]
        root = merkle_root([(digest(bundle), bundle["signature"]) for bundle in clients["bundles"]])
        return clients["version"], len(clients["bundles"]), root

    def open(self, header):
        need((header["version"], header["clients"], header["root"]) == self.client_set(), "another registry")
        need(header["aggregator"] == self.state["aggregator"]["peer"], "another aggregator")
        need(header["previous"] == dict(self.state["previous"], **{"": "previous"}), "another past")
        self.state.update(opened=header["round"], open={
            "header": header, "digest": digest(header), "clients": self.state["clients"], "signatures": {},
            "refused": None, "aggregate": None, "partials": {}})

    def sign(self, signed):
        now = self.state["open"]
        now["signatures"][signed["server"]] = signed
        if len(now["signatures"]) == len(now["header"]["servers"]):
            refused = live(now["header"], [now["signatures"][server] for server in sorted(now["signatures"])])
            now["refused"] = now["header"]["clients"], b"".join(
                bytes([sum(1 << bit for bit in range(8) if first + bit in refused)])
                for first in range(0, now["header"]["clients"], 8))

    def aggregate(self, aggregate):
        need(is_signed(aggregate, aggregator=self.state["open"]["header"]["aggregator"]), "an aggregate does not verify")
        self.state["open"]["aggregate"] = {
            "digest": digest(aggregate), "participants": aggregate["participants"], "body": aggregate["body"]}

    def partial(self, index, partial):
        need(is_signed(partial), "a partial does not verify")
        now, applied = self.state["open"], self.state["open"]["aggregate"]
        need(partial["aggregate"] == applied["digest"], "a partial of another aggregate")
        applied["body"] = xor([applied["body"], partial["body"]])
        now["partials"][partial["server"]] = digest(partial)
        roster = [server["peer"] for server in now["header"]["servers"]]
        if len(now["partials"]) < len(roster):
            return None
        record = {
            "": "record", "log": now["header"]["log"], "round": now["header"]["round"], "header": now["digest"],
            "participants": applied["participants"], "servers": roster, "broadcast": applied["body"],
            "previous": self.state["previous"]["record"], "aggregate": applied["digest"],
            "partials": [now["partials"][server] for server in roster], "index": index, "chain": self.state["chain"]}
        named = digest(record)
        self.state.update(open=None, chain=named)
        self.state["records"].append({"record": record, "digest": named, "signatures": {}})
        self.state["previous"] = {"round": record["round"], "record": named, "state": self.digest(record, named)}
        return record

    def sign_record(self, signed):
        for kept in self.state["records"]:
            if kept["digest"] == signed["record"]:
                kept["signatures"][signed["server"]] = signed

    def digest(self, record, named):
        it = self.state
        version, clients, root = self.client_set()
        fields = dict(STATE_FIELDS)
        out = b"".join(fields[name][1](it[name]) for name in (
            "log", "voters", "servers", "retired", "farewells", "aggregator", "replaced", "candidates"))
        out += NUMBER[1](version) + SHORT[1](clients) + root + NUMBER[1](it["clients"]["counter"])
        out += b"".join(fields[name][1](it[name]) for name in ("refusals", "barred", "opened"))
        return derive("zipnet v1 committee state", vector(out + NUMBER[1](record["round"]) + named))



# --- Links, section 13 -------------------------------------------------------------------------------------------------

TEXT = BODY
STORED = record_of("stored peer", ("peer", ID), ("store", NUMBER))
HELLO = record_of("hello", ("wire_version", fixed(1)), ("role", ROLE), ("instance", ID), ("universe", ID),
                  ("group_proof", optional(ID)), ("num_slots", SHORT), ("slot_bytes", SHORT), ("tag_len", SHORT),
                  ("machine_signature", ID), ("log", optional(ID)), ("has_records", BOOL), ("steadfast", BOOL),
                  ("store", optional(NUMBER)), ("address", optional(TEXT)), ("incarnation", fixed(16)),
                  ("attestation", optional(BODY)))
ENTRY = record_of("peer entry", ("peer", ID), ("instance", ID), ("role", ROLE), ("address", optional(TEXT)),
                  ("sequence", NUMBER), ("signature", SIGNATURE))
KNOWN = record_of("known", ("peer", ID), ("sequence", NUMBER))
REFUSALS = (
    "malformed universe instance wire-version parameters machine-signature role group-proof attestation retired "
    "duplicate-identity two-logs myself not-listed").split()
FAREWELLS = "departing leaving spare replaced yielding".split()
FRAMES = {
    1: HELLO, 2: below(len(REFUSALS)), 3: NUMBER, 4: NUMBER, 5: below(len(FAREWELLS)), 6: listed(KNOWN, 256),
    7: listed(ENTRY, 64), 8: record_of("welcome"),
    9: record_of("members", ("log", optional(ID)), ("index", NUMBER), ("voters", listed(STORED, 1024))),
    10: record_of("reach", ("servers", listed(ID, 1024)))}

BLANK = record_of("nothing")
VOTE = record_of("vote", ("term", NUMBER), ("node", STORED), ("committed", BOOL))
POSITION = record_of("position", ("term", NUMBER), ("index", NUMBER))
VOTERS = listed(STORED, 1024)
MEMBERSHIP = record_of("membership", ("configs", listed(VOTERS, 2)), ("nodes", VOTERS))
LOG_ENTRY = record_of("entry", ("at", POSITION), ("payload", choice(BLANK, BODY, MEMBERSHIP)))
BALLOT = record_of("ballot", ("vote", VOTE), ("last", optional(POSITION)), ("transfer", BOOL))
META = record_of("meta", ("last", optional(POSITION)), ("membership_at", optional(POSITION)), ("membership", MEMBERSHIP))
REQUEST = choice(
    record_of("append", ("vote", VOTE), ("prev", optional(POSITION)), ("entries", listed(LOG_ENTRY, 1024)),
              ("commit", optional(POSITION))),
    BALLOT, BALLOT, record_of("snapshot", ("vote", VOTE), ("meta", META), ("state", BODY)),
    record_of("transfer", ("from", VOTE), ("to", STORED), ("last", optional(POSITION))))
REPLY = choice(
    BLANK, optional(POSITION), BLANK, VOTE,
    record_of("voted", ("vote", VOTE), ("granted", BOOL), ("last", optional(POSITION))), VOTE, BLANK,
    record_of("vote changed", ("expected", VOTE), ("actual", VOTE)),
    record_of("log behind", ("expected", optional(POSITION)), ("actual", optional(POSITION))), BLANK)
CONSENSUS = choice(record_of("request", ("number", NUMBER), ("request", REQUEST)),
                   record_of("reply", ("number", NUMBER), ("reply", REPLY)))


def check_links(v):
    sender, receiver = unhex(v["sender"]), unhex(v["receiver"])
    key = derive("zipnet v1 group proof", unhex(v["committee_secret"]))
    entries = []
    for case in v["frames"]:
        data = unhex(case["frame"])
        same("version of a frame", data[0], 1)
        kind = FRAMES[data[1]]
        value = whole(kind, data[2:])
        same(case["why"], kind[1](value), data[2:].hex())
        refuses("a byte more", lambda: whole(kind, data[2:] + b"\0"))
        if data[1] == 1:
            proof = keyed(key, unhex(v["exporter"]) + bytes([value["role"]]) + sender + receiver)
            same("group proof", value["group_proof"] == (proof if value["role"] == 0 else None), True)
        if data[1] == 7:
            entries += value
    same("entries", [digest(entry).hex() for entry in entries], v["entry_digests"])
    for entry in entries:
        same("an entry's signature", is_signed(entry), True)
        same("an entry of another sequence", is_signed(dict(entry, sequence=0)), False)
    for case in v["consensus"]:
        data = unhex(case["message"])
        same(case["why"], decode(CONSENSUS, data)[0] in (0, 1), True)
        refuses("a byte less", lambda: decode(CONSENSUS, data[:-1]))
    same("announcement", b"\1" + sender + u64(v["incarnation"]) + bytes(2) + receiver + u64(0) + b"\6",
         v["announcement"])


# --- The vectors -------------------------------------------------------------------------------------------------------

def refuses(what, attempt):
    try:
        attempt()
    except Refused:
        return
    sys.exit(f"{what}: it was not refused")


def check_messages(v):
    same("reasons", REASONS, v["reasons"])
    people = {name: unhex(v[name]) for name in ("client", "aggregator")}
    for name, kind in (("message", MESSAGE), ("command", COMMAND)):
        for number_, case in enumerate(v[name + "s"]):
            DIGESTED.clear()
            data = unhex(case[name])
            value = decode(kind, data)
            same(f"kind of a {name}", value[0], number_)
            same(f"digests of {name} {number_}", [digest(it).hex() for it in DIGESTED], case["digests"])
            for it in DIGESTED:
                if DIGESTS[it[""]][2] is None:
                    continue
                same(f"a signature in {name} {number_}", is_signed(it, **people), True)
                broken = dict(it, signature=bytes([it["signature"][0] ^ 1]) + it["signature"][1:])
                same(f"a broken signature in {name} {number_}", is_signed(broken, **people), False)
            refuses("a byte more", lambda: decode(kind, data + b"\0"))
            refuses("a byte less", lambda: decode(kind, data[:-1]))
    for case in v["refused"]:
        kind = MESSAGE if "message" in case else COMMAND
        refuses(case["why"], lambda: decode(kind, unhex(case.get("message", case.get("command")))))


def root_by_path(leaf, at, width, path):
    path = list(path)
    while width > 1:
        if at & 1:
            leaf = derive("zipnet v1 registry node", path.pop(0) + leaf)
        elif at + 1 < width:
            leaf = derive("zipnet v1 registry node", leaf + path.pop(0))
        at, width = at // 2, (width + 1) // 2
    need(not path, "the path is too long")
    return leaf


def check_proofs(v):
    for case in v["registries"]:
        places = case["places"]
        same("order of clients", sorted(it["client"] for it in places), [it["client"] for it in places])
        bundles = [(unhex(it["bundle_digest"]), unhex(it["bundle_signature"])) for it in places]
        same(case["why"], merkle_root(bundles), case["root"])
        for at, (it, bundle) in enumerate(zip(places, bundles)):
            leaf = derive("zipnet v1 registry leaf", b"".join(bundle))
            path = [unhex(step) for step in it["path"]]
            same(case["why"] + ", by a path", root_by_path(leaf, at, len(places), path), case["root"])
            refuses("a longer path", lambda: root_by_path(leaf, at, len(places), path + [leaf]))


def check_machine(v):
    machine = Machine([unhex(voter) for voter in v["voters"]])
    entries = [(entry["index"], unhex(entry["bytes"])) for entry in v["entries"]]
    expected, since = list(v["records"]), []
    for index, entry in entries:
        since.append((index, entry))
        record = machine.enter(index, entry)
        if record is None:
            continue
        case = expected.pop(0)
        same("record digest", digest(record), case["digest"])
        same("state digest", machine.state["previous"]["state"], case["state"])
        check_parts(record, decode(MESSAGE, unhex(case["message"]))[1], since)
        since = []
    same("records that were not made", expected, [])
    state = b"".join(kind[1](machine.state[name]) for name, kind in STATE_FIELDS)
    same("snapshot", state, v["snapshot"])


def parts_of(published, entries):
    """Everything that `audit` wants, out of the commands since the record before. Those that were refused are among them:
    what the record names is taken, and of what is not named the first good one."""
    record, values = published["record"], {kind: [] for kind in (1, 2, 3, 4)}
    for _, entry in entries:
        try:
            kind, value = decode(COMMAND, entry)
        except Refused:
            continue
        values.get(kind, []).append(value)
    headers = [it for it in values[1] if digest(it) == record["header"]]
    aggregates = [it for it in values[3] if digest(it) == record["aggregate"]]
    need(headers and aggregates, "the header or the aggregate is not among the entries")
    signatures = {it["server"]: it for it in reversed(values[2]) if it["header"] == record["header"] and is_signed(it)}
    partials = {digest(it): it for it in values[4]}
    need(set(record["partials"]) <= set(partials), "a partial is not among the entries")
    return {
        "record": record, "signatures": published["signatures"], "header": headers[0],
        "header_signatures": [signatures[server] for server in sorted(signatures)], "aggregate": aggregates[0],
        "partials": [partials[named] for named in record["partials"]], "entries": entries}


def audit_file(path):
    """Says what an auditor wants to know of a file that a server has written."""
    v = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    need(v["format"] == "zipnet parts 1", "another format")
    kind, published = decode(MESSAGE, unhex(v["message"]))
    need(kind == 11, "no record")
    entries = [(entry["index"], unhex(entry["bytes"])) for entry in v["entries"]]
    given = parts_of(published, entries)
    confirmed = audit(**given)
    record = published["record"]
    print(f"record {digest(record).hex()} of r{record['round']} is what its parts make; "
          f"{len(ones(record['participants']))} participants, {len(record['servers'])} servers, "
          f"{len(entries)} entries, {'confirmed' if confirmed else 'not all have signed'}")


def check_parts(made, published, entries):
    """The record that was published, from the parts in the log; and no other one."""
    same("published record", published["record"], made)
    given = parts_of(published, entries)
    header, aggregate = given["header"], given["aggregate"]
    same("confirmed", audit(**given), True)
    params = header["num_slots"], header["slot_bytes"], header["tag_len"]
    messages = [payload for _, payload in broadcast_slots(params, digest(header), made["broadcast"])]
    same("messages", messages, [b"hello".ljust(params[1] - params[2], b"\0")])

    flipped = bytes([made["broadcast"][0] ^ 1]) + made["broadcast"][1:]
    changes = [
        ("record", dict(made, broadcast=flipped)), ("record", dict(made, chain=bytes(32))),
        ("record", dict(made, previous=bytes([1]) * 32)), ("record", dict(made, index=made["index"] + 1)),
        ("record", dict(made, partials=made["partials"][::-1])), ("header", dict(header, nonce=bytes(32))),
        ("header_signatures", given["header_signatures"][1:]), ("aggregate", dict(aggregate, body=flipped)),
        ("partials", given["partials"][1:]), ("partials", [dict(it, body=flipped) for it in given["partials"]]),
        ("entries", entries[1:]), ("entries", entries[:-1]),
        ("signatures", [dict(it, record=bytes(32)) for it in published["signatures"]])]
    for name, value in changes:
        refuses("a record with another " + name, lambda: audit(**dict(given, **{name: value})))


def check_signatures():
    """The building block against values that are not ours."""
    key = unhex("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025")
    good = unhex("6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
                 "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a")
    same("the third test of RFC 8032", verify(key, unhex("af82"), good), True)
    more = (int.from_bytes(good[32:], "little") + L).to_bytes(32, "little")
    same("a scalar that is not reduced", verify(key, unhex("af82"), good[:32] + more), False)
    same("base point", equal(times(L, BASE), NEUTRAL), True)
    small = decompress(unhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"))
    same("a point of order two", equal(times(2, small), NEUTRAL), True)
    same("a form that is not canonical", decompress((P + 1).to_bytes(32, "little")), None)


def main():
    here = pathlib.Path(__file__).resolve().parent
    if sys.argv[1:2] == ["audit"]:
        try:
            return audit_file(sys.argv[2])
        except Refused as reason:
            sys.exit(f"it is not what it says: {reason}")
    directory = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here.parent / "vectors"

    def load(name):
        return json.loads((directory / name).read_text(encoding="utf-8"))

    check_signatures()
    check_messages(load("messages.json"))
    check_proofs(load("proofs.json"))
    check_machine(load("machine.json"))
    if len(sys.argv) > 2:
        directory = pathlib.Path(sys.argv[2])
        check_links(load("links.json"))
    print("every message was read and every record audited")


if __name__ == "__main__":
    main()
