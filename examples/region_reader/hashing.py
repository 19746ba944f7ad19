"""What docs/region.md says of hashes: the header's check, rapidhash v3 nano, and the order of a scan."""

U64 = 2**64 - 1


def header_check(words):
    check = 0
    for word in (*words[1:18], *words[24:32]):
        check = (check << 5 & U64 | check >> 59) ^ word
    return check


def rapidhash(key, seed, secrets):
    left, at = len(key), 0

    def u64(at, length=8):
        return int.from_bytes(key[at : at + length], "little")

    def fold(a, b):
        return a * b & U64 ^ a * b >> 64

    def mix(at, secret, seed):
        return fold(u64(at) ^ secrets[secret], u64(at + 8) ^ seed)

    if left > 16:
        lanes = [seed] * 3
        while left > 48:
            lanes = [mix(at + 16 * lane, lane, lanes[lane]) for lane in range(3)]
            at, left = at + 48, left - 48
        seed = lanes[0] if at == 0 else lanes[0] ^ lanes[1] ^ lanes[2]
        for more in range(0, left - 16, 16):
            seed = mix(at + more, 2, seed)
        a, b = u64(len(key) - 16) ^ left, u64(len(key) - 8)
    elif left >= 4:
        half = 8 if left >= 8 else 4
        seed, a, b = seed ^ left, u64(0, half), u64(left - half, half)
    else:
        a, b = key[0] << 45 | key[-1], key[left >> 1]
    product = (a ^ secrets[1]) * (b ^ seed)
    return fold(product & U64 ^ 0xAAAAAAAAAAAAAAAA, product >> 64 ^ secrets[1] ^ left)


def reversed_bits(hash):
    return int(f"{hash:064b}"[::-1], 2)
