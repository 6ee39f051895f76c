#!/usr/bin/env python3
"""A second implementation of docs/protocol.md, for the test vectors only: slow, short, standard library only.

    python3 zipnet_reference.py [directory of the vectors]

It is written from the page and shares no code with the crate. What it does not compute: ed25519 and argon2id.
"""

import json
import pathlib
import struct
import sys

# --- BLAKE3, from its specification ------------------------------------------------------------------------------------

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
CHUNK_START, CHUNK_END, PARENT, ROOT, KEYED, CONTEXT, MATERIAL = 1, 2, 4, 8, 16, 32, 64
LANES = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
         (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
M = 0xFFFFFFFF


def compress(chaining, block, counter, length, flags):
    words = struct.unpack("<16I", block.ljust(64, b"\0"))
    v = list(chaining) + list(IV[:4]) + [counter & M, counter >> 32, length, flags]
    for _ in range(7):
        for lane, (a, b, c, d) in enumerate(LANES):
            for word, first, second in ((words[2 * lane], 16, 12), (words[2 * lane + 1], 8, 7)):
                v[a] = (v[a] + v[b] + word) & M
                x = v[d] ^ v[a]
                v[d] = (x >> first | x << (32 - first)) & M
                v[c] = (v[c] + v[d]) & M
                x = v[b] ^ v[c]
                v[b] = (x >> second | x << (32 - second)) & M
        words = [words[place] for place in PERMUTATION]
    return [v[i] ^ v[i + 8] for i in range(8)]


def chunk(key, data, counter, flags, root):
    blocks = [data[i:i + 64] for i in range(0, len(data), 64)] or [b""]
    chaining = key
    for i, block in enumerate(blocks):
        last = i == len(blocks) - 1
        flag = flags | (CHUNK_START if i == 0 else 0) | (CHUNK_END if last else 0) | (ROOT if root and last else 0)
        chaining = compress(chaining, block, counter, len(block), flag)
    return chaining


def tree(key, data, counter, flags, root):
    if len(data) <= 1024:
        return chunk(key, data, counter, flags, root)
    # The left part is the largest power of two of chunks that leaves at least one byte for the right part.
    left = 1024
    while left * 2 < len(data):
        left *= 2
    words = tree(key, data[:left], counter, flags, False)
    words += tree(key, data[left:], counter + left // 1024, flags, False)
    return compress(key, struct.pack("<16I", *words), 0, 64, flags | PARENT | (ROOT if root else 0))


def pack(words):
    return struct.pack("<8I", *words)


def blake3(data):
    return pack(tree(IV, data, 0, 0, True))


def keyed(key, data):
    return pack(tree(struct.unpack("<8I", key), data, 0, KEYED, True))


def derive(context, data):
    key = tree(IV, context.encode(), 0, CONTEXT, True)
    return pack(tree(key, data, 0, MATERIAL, True))


# --- AES-128 in counter mode, from FIPS 197 ----------------------------------------------------------------------------

def double(x):
    return (x << 1) ^ (0x11B if x & 0x80 else 0)


def make_sbox():
    box, p, q = [0x63] + [0] * 255, 1, 1
    while True:
        p ^= double(p)                                  # times 3
        for shift in (1, 2, 4):                         # divided by 3
            q ^= q << shift & 0xFF
        q ^= 0x09 if q & 0x80 else 0
        x = q
        for shift in (1, 2, 3, 4):
            x ^= (q << shift | q >> (8 - shift)) & 0xFF
        box[p] = x ^ 0x63
        if p == 1:
            return box


SBOX = make_sbox()
TWICE = [double(x) for x in range(256)]


def expand(key):
    words, rcon = [list(key[i:i + 4]) for i in range(0, 16, 4)], 1
    for i in range(4, 44):
        word = words[i - 1]
        if i % 4 == 0:
            word = [SBOX[byte] for byte in word[1:] + word[:1]]
            word[0] ^= rcon
            rcon = double(rcon)
        words.append([a ^ b for a, b in zip(words[i - 4], word)])
    return [sum(words[i:i + 4], []) for i in range(0, 44, 4)]


def encrypt(keys, block):
    state = [a ^ b for a, b in zip(block, keys[0])]
    for number in range(1, 11):
        state = [SBOX[state[(i + 4 * (i % 4)) % 16]] for i in range(16)]
        if number < 10:
            mixed = []
            for i in range(0, 16, 4):
                a, b, c, d = state[i:i + 4]
                everything = a ^ b ^ c ^ d
                mixed += [a ^ everything ^ TWICE[a ^ b], b ^ everything ^ TWICE[b ^ c],
                          c ^ everything ^ TWICE[c ^ d], d ^ everything ^ TWICE[d ^ a]]
            state = mixed
        state = [a ^ b for a, b in zip(state, keys[number])]
    return bytes(state)


def keystream(key, length):
    keys = expand(key)
    blocks = (encrypt(keys, counter.to_bytes(16, "big")) for counter in range((length + 15) // 16))
    return b"".join(blocks)[:length]


# --- X25519, from RFC 7748 ---------------------------------------------------------------------------------------------

P = 2 ** 255 - 19


def x25519(secret, public):
    k = int.from_bytes(secret, "little") & ~7 & ~(1 << 255) | 1 << 254
    u = (int.from_bytes(public, "little") & (1 << 255) - 1) % P
    x2, z2, x3, z3 = 1, 0, u, 1
    for bit in range(254, -1, -1):
        if k >> bit & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb, aa, bb = d * a, c * b, a * a, b * b
        e = aa - bb
        y2, w2, y3, w3 = aa * bb, e * (aa + 121665 * e), (da + cb) ** 2, u * (da - cb) ** 2
        x2, z2, x3, z3 = y2 % P, w2 % P, y3 % P, w3 % P
        if k >> bit & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def public(secret):
    return x25519(secret, (9).to_bytes(32, "little"))


# --- The protocol ------------------------------------------------------------------------------------------------------

def u32(number):
    return struct.pack("<I", number)


def u64(number):
    return struct.pack("<Q", number)


def vector(data):
    return u64(len(data)) + derive("zipnet v1 vector", data)


def from_text(text):
    if len(text) == 64 and all(digit in "0123456789abcdefABCDEF" for digit in text):
        return bytes.fromhex(text)
    return blake3(text.encode())


def pair_key(shared, client, server, group):
    """Each end is a peer and its round key."""
    ends = b"\2" + b"".join(client) + b"\0" + b"".join(server)
    return derive("zipnet v1 pair key", shared + ends + group)


def pad_key(pair, header):
    return keyed(pair, header)[:16]


def pad(pair, header, length):
    return keystream(pad_key(pair, header), length)


def tag(header, slot, payload):
    return keyed(derive("zipnet v1 slot tag", header + u32(slot)), payload)


def xor(vectors):
    total = 0
    length = 0
    for one in vectors:
        total ^= int.from_bytes(one, "big")
        length = len(one)
    return total.to_bytes(length, "big")


def merkle_root(bundles):
    level = [derive("zipnet v1 registry leaf", digest + signature) for digest, signature in bundles]
    while len(level) > 1:
        pairs = [level[i:i + 2] for i in range(0, len(level), 2)]
        level = [derive("zipnet v1 registry node", p[0] + p[1]) if len(p) == 2 else p[0] for p in pairs]
    return level[0] if level else bytes(32)


def broadcast_slots(params, header, broadcast):
    slots, slot_bytes, tag_len = params
    for slot in range(slots):
        content = broadcast[slot * slot_bytes:(slot + 1) * slot_bytes]
        payload, found = content[:slot_bytes - tag_len], content[slot_bytes - tag_len:]
        if any(content):
            yield slot, payload if tag(header, slot, payload)[:tag_len] == found else None


# --- The vectors -------------------------------------------------------------------------------------------------------

def same(what, computed, expected):
    if isinstance(computed, bytes):
        computed = computed.hex()
    if computed != expected:
        sys.exit(f"{what}: computed {computed}, the vector says {expected}")


def same_summary(what, computed, expected):
    same(what + ", bytes", len(computed), expected["bytes"])
    if "hex" in expected:
        same(what, computed, expected["hex"])
    else:
        same(what + ", hash", blake3(computed), expected["blake3"])
        same(what + ", end", computed[-32:], expected["last_32"])


def unhex(text):
    return bytes.fromhex(text)


def check_identifiers(v):
    for case in v["texts"]:
        same(case["why"], from_text(case["text"]), case["id"])
    same("universe", from_text("mosaik.universe"), v["universe"])
    instance = blake3(b"zipnet." + v["instance"]["name"].encode())
    for label, expected in v["instance"].items():
        if label == "id":
            same(label, instance, expected)
        elif label != "name":
            same(label, blake3(instance + label.encode()), expected)
    machine = v["machine"]
    signature = derive("zipnet v1 machine signature", bytes([machine["wire_version"]])
                       + u32(machine["machine_version"]) + b"".join(u32(number) for number in machine["params"]))
    same("machine signature", signature, machine["signature"])
    secret = unhex(v["committee"]["secret"])
    group = derive("zipnet v1 group id", blake3(instance + b"committee") + secret + signature)
    same("group id", group, v["committee"]["group_id"])
    text = v["stretched"]
    same("what is stretched", from_text(text["text"]), text["password"])
    for kind in ("node", "committee"):
        same(f"salt of the {kind} secret", f"zipnet v1 {kind} secret".encode() + instance, text[kind]["salt"])
    stretched = unhex(text["node"]["output"])
    same("identity of a text", derive("zipnet v1 identity key", stretched), text["node"]["ed25519_seed"])
    stretched = unhex(text["committee"]["output"])
    group = derive("zipnet v1 group id", blake3(instance + b"committee") + stretched + signature)
    same("group id of a text", group, text["committee"]["group_id"])
    node = from_text(v["node"]["text"])
    same("identity", derive("zipnet v1 identity key", node), v["node"]["ed25519_seed"])
    same("state key", derive("zipnet v1 state key", node), v["node"]["state_key"])
    proof = keyed(derive("zipnet v1 group proof", secret), unhex(v["committee"]["exporter"]) + b"\0"
                  + unhex(v["node"]["peer"]) + unhex(v["committee"]["verifier"]))
    same("group proof", proof, v["committee"]["proof_of_a_server"])
    same("contexts", len(set(v["contexts"])), len(v["contexts"]))


def check_pads(v):
    client, server = unhex(v["client_secret"]), unhex(v["server_secret"])
    same("client's public key", public(client), v["client_public"])
    same("server's public key", public(server), v["server_public"])
    shared = x25519(client, public(server))
    same("shared", shared, v["shared"])
    same("shared, from the other side", x25519(server, public(client)), v["shared"])
    ends = (unhex(v["client_peer"]), public(client)), (unhex(v["server_peer"]), public(server))
    pair, header = pair_key(shared, *ends, unhex(v["group"])), unhex(v["header"])
    same("pad key", pad_key(pair, header), v["pad_key"])
    for case in v["pads"]:
        same_summary(case["why"], pad(pair, header, case["pad"]["bytes"]), case["pad"])


def check_slots(v):
    for case in v["tags"]:
        same(case["why"], tag(unhex(v["header"]), case["slot"], unhex(case["payload"])), case["tag"])


def check_round(v, case):
    log, group, previous = unhex(v["log"]), unhex(v["group"]), v["previous"]
    params = case["params"]
    length = params[0] * params[1]
    servers, clients = case["servers"], case["clients"]
    for node in servers + clients:
        same("round key", public(unhex(node["round_secret"])), node["round_key"])
    same("order of servers", sorted(s["peer"] for s in servers), [s["peer"] for s in servers])
    same("order of clients", sorted(c["peer"] for c in clients), [c["peer"] for c in clients])
    root = merkle_root([(unhex(b["digest"]), unhex(b["signature"])) for b in case["client_bundles"]])
    same("root", root, case["clients_root"])

    roster = b"".join(unhex(s["peer"]) + u64(v["server_epoch"]) + unhex(s["round_key"]) for s in servers)
    header = derive(
        "zipnet v1 round header",
        log + u64(v["round"]) + unhex(v["nonce"]) + group + b"".join(u32(number) for number in params)
        + u64(previous["round"]) + unhex(previous["record"]) + unhex(previous["state"])
        + u64(len(servers)) + roster
        + u64(v["registry_version"]) + u32(len(clients)) + root + u32(v["min_participants"])
        + unhex(v["aggregator"]))
    same("header digest", header, case["header_digest"])

    pads = {}
    for c, client in enumerate(clients):
        for s, server in enumerate(servers):
            shared = x25519(unhex(client["round_secret"]), unhex(server["round_key"]))
            ends = [(unhex(node["peer"]), unhex(node["round_key"])) for node in (client, server)]
            pair = pair_key(shared, *ends, group)
            pads[c, s] = pad(pair, header, length)

    bitmap = unhex(case["participants"])
    present = [c for c in range(len(clients)) if bitmap[c // 8] >> (c % 8) & 1]
    messages = {m["client"]: (m["slot"], unhex(m["payload"])) for m in case["messages"]}
    envelopes = []
    for c in present:
        plain = bytearray(length)
        if c in messages:
            slot, payload = messages[c]
            plain[slot * params[1]:(slot + 1) * params[1]] = payload + tag(header, slot, payload)[:params[2]]
        envelopes.append(xor([bytes(plain)] + [pads[c, s] for s in range(len(servers))]))
    for number, envelope in enumerate(envelopes):
        same_summary(f"envelope {number}", envelope, case["envelopes"][number])
    aggregate = xor(envelopes)
    same_summary("aggregate", aggregate, case["aggregate"])
    place = log + u64(v["round"]) + header
    bits = u32(len(clients)) + bitmap
    aggregate_digest = derive("zipnet v1 aggregate", place + bits + vector(aggregate))
    same("aggregate digest", aggregate_digest, case["aggregate_digest"])

    partials = [xor([pads[c, s] for c in present]) for s in range(len(servers))]
    for s, partial in enumerate(partials):
        same_summary(f"partial {s}", partial, case["partials"][s])
        signed = place + aggregate_digest + unhex(servers[s]["peer"]) + vector(partial)
        same("partial digest", derive("zipnet v1 partial", signed), case["partial_digests"][s])
    broadcast = xor([aggregate] + partials)
    same_summary("broadcast", broadcast, case["broadcast"])
    index, entry = u64(v["entry"]["index"]), unhex(v["entry"]["bytes"])
    chain = derive("zipnet v1 log chain", unhex(previous["record"]) + index + vector(entry))
    same("chain", chain, case["chain"])
    record = (place + bits + u64(len(servers)) + b"".join(unhex(s["peer"]) for s in servers)
              + vector(broadcast) + unhex(previous["record"]) + aggregate_digest
              + u64(len(partials)) + b"".join(unhex(digest) for digest in case["partial_digests"])
              + index + chain)
    same("record digest", derive("zipnet v1 broadcast record", record), case["record_digest"])

    written = {}
    for c in present:
        if c in messages:
            slot, payload = messages[c]
            written[slot] = None if slot in written else payload
    same("slots", {s: p and p.hex() for s, p in broadcast_slots(params, header, broadcast)},
         {s: p and p.hex() for s, p in written.items()})


def varint(data):
    number = shift = 0
    for used, byte in enumerate(data):
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, data[used + 1:]
    sys.exit("a number does not end")


def take(data, length):
    return data[:length], data[length:]


def check_wire(v):
    signer = unhex(v["signer"])
    bundle, proposal, envelope, signed, booted = (unhex(case["message"]) for case in v["messages"])
    digests = [case["signed_digest"] for case in v["messages"]]

    same("version and kind", bundle[:2], "0101")
    peer, rest = take(bundle[2:], 32)
    role, rest = take(rest, 1)
    instance, rest = take(rest, 32)
    epoch, rest = varint(rest)
    key, rest = take(rest, 32)
    some, rest = take(rest, 1)
    participants, rest = varint(rest)
    servers, rest = take(rest, 1)
    boot, rest = take(rest, 1)
    same("bundle", [peer, role, some, servers, boot, len(rest)], [signer, b"\0", b"\1", b"\0", b"\0", 64])
    fields = peer + role + instance + u64(epoch) + key + b"\1" + u32(participants)
    same("bundle digest", derive("zipnet v1 bundle", fields + b"\0"), digests[0])

    same("the same with another end", booted[:-193], bundle[:-65].hex())
    boot, rest = take(booted[-193:], 1)
    boot_key, rest = take(rest, 32)
    boot_signature, rest = take(rest, 64)
    quote, rest = take(rest, 32)
    same("boot", [boot, len(rest)], [b"\1", 64])
    same("boot digest", derive("zipnet v1 boot", instance + role + peer + u64(epoch) + key), v["boot_digest"])
    same("bundle digest with a boot", derive("zipnet v1 bundle", fields + b"\1" + boot_key + boot_signature + quote),
         digests[4])

    same("version, kind, kind of the command", proposal[:3], "010002")
    log, rest = take(proposal[3:], 32)
    round_, rest = varint(rest)
    header, rest = take(rest, 32)
    server, rest = take(rest, 32)
    places, rest = varint(rest)
    count, rest = varint(rest)
    bits, rest = take(rest, count)
    same("header signature", [server, places, count, len(rest)], [signer, 11, 2, 64])
    same("header signature digest", derive("zipnet v1 header signature", log + u64(round_) + header + server
                                           + u32(places) + bits), digests[1])

    same("version and kind", envelope[:2], "0105")
    log, rest = take(envelope[2:], 32)
    round_, rest = varint(rest)
    header, rest = take(rest, 32)
    epoch, rest = varint(rest)
    count, rest = varint(rest)
    body, rest = take(rest, count)
    same("envelope", [count, len(rest)], [4, 64])
    same("envelope digest", derive("zipnet v1 envelope", log + u64(round_) + header + u64(epoch) + vector(body)),
         digests[2])

    same("version, kind, number of signatures", signed[:3], "010c01")
    log, rest = take(signed[3:], 32)
    round_, rest = varint(rest)
    record, rest = take(rest, 32)
    server, rest = take(rest, 32)
    same("record signature", [server, len(rest)], [signer, 64])
    same("record signature digest", derive("zipnet v1 record signature", log + u64(round_) + record + server),
         digests[3])


def check_self():
    """The building blocks against values from their own standards, so that a failure says where it is."""
    same("BLAKE3", blake3(b""), "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262")
    same("AES-128", encrypt(expand(bytes(range(16))), bytes.fromhex("00112233445566778899aabbccddeeff")),
         "69c4e0d86a7b0430d8cdb78070b4c55a")
    scalar = unhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    point = unhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    same("X25519", x25519(scalar, point), "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552")


def main():
    here = pathlib.Path(__file__).resolve().parent
    directory = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here.parent / "vectors"

    def load(name):
        return json.loads((directory / name).read_text(encoding="utf-8"))

    check_self()
    check_identifiers(load("identifiers.json"))
    check_pads(load("pads.json"))
    check_slots(load("slots.json"))
    rounds = load("rounds.json")
    for case in rounds["rounds"]:
        check_round(rounds, case)
    check_wire(load("wire.json"))
    print("every vector was computed again")


if __name__ == "__main__":
    main()
