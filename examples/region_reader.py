#!/usr/bin/env python3
"""Reads a ganger region from outside: written from docs/region.md alone, to show that it suffices.

usage: region_reader.py FILE get KEY | scan [PREFIX] | stats   [--hex: keys and values are in hex]
FILE: /proc/PID/fd/N of a process that has it attached, or /dev/shm/NAME. Exits with 1 if there is no such key.
"""
import mmap
import sys
import time

PAGE, U64 = 65536, 2**64 - 1
LARGE, NESTED, COUNTER, EPHEMERAL = 1, 2, 4, 8  # flags of an entry
KINDS = "absent free committing releasing blocks index value list".split()


def u64(data, at=0):
    return int.from_bytes(data[at : at + 8], "little")


class Region:
    def __init__(self, path):
        with open(path, "rb") as file:
            self.bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        # A native cast reads each word with one load; struct's "<Q" would read byte by byte.
        self.words = word = memoryview(self.bytes).cast("Q")
        if self.bytes[:8] != b"GANGERRG" or word[1] & 0xFFFFFFFF != 3 or word[1] >> 33:
            sys.exit(f"{path}: not a region of layout version 3")
        self.head_words = 6 if word[1] >> 32 & 1 else 4  # regions that evict: two words more
        self.shards, self.pages, self.directory_words = word[4], word[6], word[7]
        self.shards_at, self.buckets_at, self.directory_at, self.pages_at = *word[9:12], word[16]
        self.sessions_at, self.states_at = word[8], word[12]
        self.seed, self.secrets = word[24], word[25:32]

    def hash(self, key):
        """rapidhash v3 nano."""
        seed, secret, left, at = self.seed, self.secrets, len(key), 0

        def fold(a, b):
            return a * b & U64 ^ a * b >> 64

        def mix(at, which, seed):
            return fold(u64(key, at) ^ secret[which], u64(key, at + 8) ^ seed)

        if left > 16:
            lanes = [seed] * 3
            while left > 48:
                lanes = [mix(at + 16 * lane, lane, lanes[lane]) for lane in range(3)]
                at, left = at + 48, left - 48
            seed = lanes[0] if at == 0 else lanes[0] ^ lanes[1] ^ lanes[2]
            for more in range(0, left - 16, 16):
                seed = mix(at + more, 2, seed)
            a, b = u64(key[-16:-8]) ^ left, u64(key[-8:])
        elif left >= 4:
            seed, half = seed ^ left, 8 if left >= 8 else 4
            a, b = u64(key[:half]), u64(key[-half:])
        else:
            a, b = key[0] << 45 | key[-1], key[left >> 1]
        product = (a ^ secret[1]) * (b ^ seed)
        return fold(product & U64 ^ 0xAAAAAAAAAAAAAAAA, product >> 64 ^ secret[1] ^ left)

    def page(self, index):
        if not 0 <= index < self.pages:
            raise ValueError(f"page {index}")
        return self.pages_at + index * PAGE

    def bucket(self, shard, hash, buckets):
        """Where the bucket of a hash is, and how many low bits of their hashes its keys share."""
        level = buckets.bit_length() - 1
        number = hash & (2 << level) - 1
        if number >= buckets:
            number = hash & (1 << level) - 1
        bits = level + (number < buckets - (1 << level) or number >= 1 << level)
        if number < 16:
            return self.buckets_at + (shard * 16 + number) * 64, bits
        chunk, word = number // 1024, self.shards_at // 8 + shard * 136 + 1
        if chunk >= 7:
            word, chunk = self.directory_at // 8 + shard * self.directory_words, chunk - 7
        return self.page(self.words[word + chunk] - 1) + (number + 37 * shard) % 1024 * 64, bits

    def stable(self, shard, hash, read):
        """read(bucket, shared bits), again until neither the bucket nor the root changed meanwhile."""
        root_at = self.shards_at // 8 + shard * 136
        for _ in range(1_000_000):
            root = version = self.words[root_at]
            version_at, damage = root_at, None
            try:
                bucket, bits = self.bucket(shard, hash, max(root & 0xFFFFFFFF, 16))
                version_at, version = bucket // 8, self.words[bucket // 8]
                result = read(bucket, bits)
            except (ValueError, IndexError) as error:  # also where a writer was in between
                damage = error
            if (self.words[version_at], self.words[root_at]) == (version, root):
                if damage:
                    raise damage
                return result
        sys.exit("the bucket changed faster than it could be read")

    def slots(self, bucket):
        """The slots of a bucket and of those it overflows into."""
        for _ in range(64):
            words = self.words[bucket // 8 + 1 : bucket // 8 + 8].tolist()
            yield from (word for word in words if word and not word & 1)
            if not words[6] & 1:
                return
            bucket = self.block(words[6])
        raise ValueError("a chain of buckets without end")

    def block(self, slot):
        offset = slot & (1 << 44) - 16
        if not self.pages_at <= offset < self.pages_at + self.pages * PAGE:
            raise ValueError(f"offset {offset}")
        return offset

    def entry(self, slot):
        """Hash, key and value of an entry that is not expired; a counter's value is an int."""
        at = self.block(slot) // 8
        meta, expires = self.words[at + 2], self.words[at + 3]
        length, key_len, flags = meta & (1 << 40) - 1, meta >> 40 & 0xFFFF, meta >> 56
        key_at = (at + self.head_words + (3 if flags & EPHEMERAL else 0)) * 8
        value_at = key_at + (key_len + 7) // 8 * 8
        small = flags & LARGE or value_at % PAGE + length <= PAGE
        if not 1 <= key_len <= 1024 or length > self.pages * PAGE // 4 or not small:
            raise ValueError(f"entry at {at * 8}")
        if expires and expires <= time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000:
            return None
        if flags & COUNTER:
            value = self.words[value_at // 8]
            value -= value >> 63 << 64
        elif flags & LARGE:
            value = self.large(value_at // 8, length, flags & NESTED)
        else:
            value = self.bytes[value_at : value_at + length]
        return self.words[at + 1], self.bytes[key_at : key_at + key_len], value

    def large(self, at, length, nested):
        """A value in pages of its own: `at` lists them, or lists pages that list them."""
        parts = []
        for index in range(-(-length // PAGE)):
            place = at + index
            if nested:
                place = self.page(self.words[at + index // 8192]) // 8 + index % 8192
            start = self.page(self.words[place])
            parts.append(self.bytes[start : start + min(PAGE, length - index * PAGE)])
        return b"".join(parts)

    def get(self, key):
        hash = self.hash(key)

        def find(bucket, _):
            slots = (slot for slot in self.slots(bucket) if slot >> 44 == hash >> 8 & 0xFFFFF)
            entries = filter(None, map(self.entry, slots))
            return next((value for *found, value in entries if found == [hash, key]), None)

        return self.stable(hash >> 65 - self.shards.bit_length(), hash, find)

    def scan(self, prefix=b""):
        def reverse(number):
            return int(f"{number:064b}"[::-1], 2)

        for shard in range(self.shards):
            position = 0  # in the order of bit-reversed hashes every bucket covers one interval
            while position < 1 << 64:
                def collect(bucket, bits):
                    end = (position >> 64 - bits) + 1 << 64 - bits
                    entries = filter(None, map(self.entry, self.slots(bucket)))
                    return end, [e for e in entries if position <= reverse(e[0]) < end]

                position, entries = self.stable(shard, reverse(position), collect)
                yield from ((key, value) for _, key, value in entries if key.startswith(prefix))

    def stats(self):
        def total(word, of=lambda value: value):
            at = self.shards_at // 8 + word
            return sum(of(self.words[at + shard * 136]) for shard in range(self.shards))

        attached = self.words[self.sessions_at // 8 + 1 : self.shards_at // 8 : 8].tolist()
        yield from {
            "declared_bytes": self.words[2],
            "shards": self.shards,
            "entries": total(11),
            "bytes": total(12),
            "buckets": total(0, lambda root: root & 0xFFFFFFFF),
            "writes": total(10) // 2,
            "repairs": total(24),
            "sessions_attached": sum(word != 0 for word in attached),
        }.items()
        states = self.words[self.states_at // 8 : self.states_at // 8 + self.pages].tolist()
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
        for name, value in Region(path).stats():
            print(name, value)
        return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
