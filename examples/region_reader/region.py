"""A reader of live regions, from docs/region.md alone. It counts in words; the value of a counter is an int."""
import mmap
import time
from hashing import header_check, rapidhash, reversed_bits

PAGE = 8192
LARGE, NESTED, COUNTER, EPHEMERAL = 1, 2, 4, 8  # flags of an entry


class Region:
    def __init__(self, path):
        with open(path, "rb") as file:
            self.memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.words = words = memoryview(self.memory).cast("Q")  # native, so that each is read by one load
        if self.memory[:8] != b"GANGERRG" or words[1] & ~(1 << 32) != 3 or header_check(words) != words[18]:
            raise ValueError(f"{path}: not a region of layout version 3")
        self.head = 6 if words[1] >> 32 else 4  # of an entry: where the region evicts, it has two words more
        self.shard_count, self.page_count, self.directory_row = words[4], words[6], words[7]
        self.shards, self.buckets, self.directory = (at // 8 for at in words[9:12])
        self.pages, self.seed, self.secrets = words[16] // 8, words[24], words[25:32]

    def get(self, key):
        hash = rapidhash(key, self.seed, self.secrets)
        _, entries = self.read(hash >> 65 - self.shard_count.bit_length(), hash, hash >> 8 & 0xFFFFF)
        return next((value for *found, value in entries if found == [hash, key]), None)

    def scan(self, prefix=b""):
        for shard in range(self.shard_count):
            position = 0  # in the order of bit-reversed hashes every bucket covers one interval
            while position < 2**64:
                bits, entries = self.read(shard, reversed_bits(position))
                start, position = position, (position >> 64 - bits) + 1 << 64 - bits
                entries = [entry for entry in entries if start <= reversed_bits(entry[0]) < position]
                yield from ((key, value) for _, key, value in entries if key.startswith(prefix))

    def read(self, shard, hash, tag=None):
        """How many low bits of their hashes the keys of a bucket share, and the entries (with that tag) in it."""
        root_at = self.shards + shard * 136
        for _ in range(100_000):
            root = self.words[root_at]
            try:
                bucket, bits = self.bucket(shard, hash, max(root & 0xFFFFFFFF, 16))
                version = self.words[bucket]
                entries = [self.entry(slot) for slot in set(self.slots(bucket)) if tag in (None, slot >> 44)]
            except (ValueError, IndexError):
                continue  # a writer was in between, or this is damage and comes again
            if (self.words[bucket], self.words[root_at]) == (version, root):
                return bits, filter(None, entries)
        raise ValueError(f"a bucket of shard {shard} is damaged, or changes faster than it can be read")

    def bucket(self, shard, hash, buckets):
        level = buckets.bit_length() - 1
        bits = level + (hash % 2**level < buckets - 2**level)
        chunk, number = divmod(hash % 2**bits, 1024)
        if chunk == 0 and number < 16:
            return self.buckets + (shard * 16 + number) * 8, bits
        row = self.shards + shard * 136 + 1 if chunk < 7 else self.directory + shard * self.directory_row - 7
        return self.page(self.words[row + chunk] - 1) + (number + 37 * shard) % 1024 * 8, bits

    def slots(self, bucket):
        for _ in range(64):
            slots = self.words[bucket + 1 : bucket + 8].tolist()
            yield from (slot & ~2 for slot in slots if slot and not slot & 1)
            if not slots[6] & 1:
                return
            bucket = self.block(slots[6])
        raise ValueError("a chain of buckets without end")

    def block(self, slot):
        page, at = divmod(slot % 2**44 // 8 - self.pages, PAGE)
        return self.page(page) + at

    def page(self, index):
        if not 0 <= index < self.page_count:
            raise ValueError(f"page {index}")
        return self.pages + index * PAGE

    def entry(self, slot):
        at = self.block(slot)
        _, hash, meta, expires = self.words[at : at + 4]
        length, key_length, flags = meta % 2**40, meta >> 40 & 0xFFFF, meta >> 56
        key_at = at + self.head + (3 if flags & EPHEMERAL else 0)
        value_at = key_at + -(-key_length // 8)
        limit = self.page_count * PAGE * 2 if flags & LARGE else (PAGE - value_at % PAGE) * 8
        if not 1 <= key_length <= 1024 or length > limit:
            raise ValueError(f"entry at {at * 8}")
        if expires and expires <= time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000:
            return None  # expired
        return hash, self.memory[key_at * 8 : key_at * 8 + key_length], self.value(value_at, length, flags)

    def value(self, at, length, flags):
        if flags & COUNTER:
            return self.words[at : at + 1].cast("B").cast("q")[0]
        if not flags & LARGE:
            return self.memory[at * 8 : at * 8 + length]
        count = -(-length // (PAGE * 8))  # of its pages, which `at` lists, or lists pages that list them
        pages = self.words[at : at + (-(-count // PAGE) if flags & NESTED else count)]
        if flags & NESTED:
            pages = [page for at in map(self.page, pages) for page in self.words[at : at + PAGE]][:count]
        return b"".join(self.words[at : at + PAGE] for at in map(self.page, pages))[:length]
