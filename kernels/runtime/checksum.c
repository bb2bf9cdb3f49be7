/* XXH64 with seed 0 (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md): faster than the disk, and tools know
 * it. The Rust side has the same in crates/moec-codegen/src/checksum.rs. */
#include <string.h>

#include "internal.h"

static const uint64_t PRIME_1 = 0x9E3779B185EBCA87u;
static const uint64_t PRIME_2 = 0xC2B2AE3D27D4EB4Fu;
static const uint64_t PRIME_3 = 0x165667B19E3779F9u;
static const uint64_t PRIME_4 = 0x85EBCA77C2B2AE63u;
static const uint64_t PRIME_5 = 0x27D4EB2F165667C5u;

static uint64_t rotate(uint64_t x, int by) { return x << by | x >> (64 - by); }

/* Little-endian, as is every machine that we make code for. */
static uint64_t word_64(const unsigned char *at) {
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static uint32_t word_32(const unsigned char *at) {
    uint32_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static uint64_t round_of(uint64_t lane, uint64_t word) { return rotate(lane + word * PRIME_2, 31) * PRIME_1; }

static uint64_t merge(uint64_t hash, uint64_t lane) { return (hash ^ round_of(0, lane)) * PRIME_1 + PRIME_4; }

uint64_t moec_xxh64(const void *data, size_t bytes) {
    const unsigned char *at = data;
    const unsigned char *end = at + bytes;
    uint64_t hash = PRIME_5;
    if (bytes >= 32) {
        uint64_t a = PRIME_1 + PRIME_2, b = PRIME_2, c = 0, d = 0 - PRIME_1;
        for (; end - at >= 32; at += 32) {
            a = round_of(a, word_64(at));
            b = round_of(b, word_64(at + 8));
            c = round_of(c, word_64(at + 16));
            d = round_of(d, word_64(at + 24));
        }
        hash = rotate(a, 1) + rotate(b, 7) + rotate(c, 12) + rotate(d, 18);
        hash = merge(merge(merge(merge(hash, a), b), c), d);
    }
    hash += bytes;
    for (; end - at >= 8; at += 8) hash = rotate(hash ^ round_of(0, word_64(at)), 27) * PRIME_1 + PRIME_4;
    if (end - at >= 4) {
        hash = rotate(hash ^ word_32(at) * PRIME_1, 23) * PRIME_2 + PRIME_3;
        at += 4;
    }
    for (; at < end; at++) hash = rotate(hash ^ *at * PRIME_5, 11) * PRIME_1;
    hash = (hash ^ hash >> 33) * PRIME_2;
    hash = (hash ^ hash >> 29) * PRIME_3;
    return hash ^ hash >> 32;
}
