"""Reads a ganger region from outside.

usage: python3 region_reader FILE get KEY | scan [PREFIX] | stats   [--hex: keys and values are in hex]
FILE: /proc/PID/fd/N of a process that has it attached, or /dev/shm/NAME. Exits with 1 if there is no such key,
with 2 for wrong use or what can't be read.
"""
import sys
from region import Region

KINDS = "absent free committing releasing blocks index value list".split()


def stats(region):
    """The numbers of a region, by name."""
    words, pages = region.words, region.page_count

    def shards(word):
        return words[region.shards + word : region.shards + region.shard_count * 136 : 136].tolist()

    yield "declared_bytes", words[2]
    yield "shards", region.shard_count
    yield "entries", sum(shards(11))
    yield "bytes", sum(shards(12))
    yield "buckets", sum(root & 0xFFFFFFFF for root in shards(0))
    yield "writes", sum(shards(10)) // 2
    yield "repairs", sum(shards(24))
    attached = words[words[8] // 8 + 1 : region.shards : 8].tolist()
    yield "sessions_attached", sum(word != 0 for word in attached)
    states = words[words[12] // 8 : words[12] // 8 + pages].tolist()
    for kind, name in enumerate(KINDS):
        yield f"pages_{name}", sum(state & 0xFF == kind for state in states)


def main(arguments):
    in_hex = "--hex" in arguments
    path, command, word, *_ = [word for word in arguments if word != "--hex"] + [""] * 3
    key = bytes.fromhex(word) if in_hex else word.encode(errors="surrogateescape")

    def show(value):
        if isinstance(value, int):
            value = value.to_bytes(8, "little", signed=True) if in_hex else str(value).encode()
        return value.hex().encode() if in_hex else value

    if command == "get" and 1 <= len(key) <= 1024:
        value = Region(path).get(key)
        sys.stdout.buffer.write(b"" if value is None else show(value))
        return int(value is None)
    if command == "scan":
        for key, value in Region(path).scan(key):
            sys.stdout.buffer.write(show(key) + b"\t" + show(value) + b"\n")
        return 0
    if command == "stats":
        for name, value in stats(Region(path)):
            print(name, value)
        return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (OSError, TypeError, ValueError) as error:  # a file of no whole number of words is a TypeError
        print(f"region_reader: {error}", file=sys.stderr)
        sys.exit(2)
