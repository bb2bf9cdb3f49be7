/* The weight file: opened, checked and mapped. Its format is in docs/weight-file.md; crates/moec-codegen writes it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

enum { VERSION = 1, DATA_ALIGNMENT = 4096 };

/* Above this, checking everything would make opening slow, so it is done only when asked for. */
static const uint64_t CHECKED_BY_DEFAULT = (uint64_t)256 << 20;

/* How long opening may take to map what is in memory already, and how much of it at a time. */
static const int64_t MAPPING_NS = 100000000;
static const size_t MAPPED_AT_ONCE = (size_t)64 << 20;

static const char MAGIC[8] = "MOECWTS";

struct header {
    char magic[8];
    uint32_t version;
    uint32_t header_bytes;
    uint64_t data_offset;
    uint64_t data_bytes;
    uint64_t fingerprint;
    uint64_t data_checksum;
    uint64_t table_bytes;
    uint64_t header_checksum; /* of the bytes before it */
};

_Static_assert(sizeof(struct header) == 64, "the header as docs/weight-file.md has it");

/* The end of a program that has weights inside, and an entry of the table that it tells of (docs/weight-file.md). */
struct program_end {
    char magic[8];
    uint32_t version;
    uint32_t parts;
    uint64_t table;
};

struct program_part {
    char name[16];
    uint64_t offset;
    uint64_t bytes;
};

static const char PROGRAM_MAGIC[8] = "MOECPRG", WEIGHTS_PART[16] = "weights";

/* Where in the file the weights are. */
struct extent {
    uint64_t from;
    uint64_t bytes;
};

static int bad(moec_error **error, const char *path, const char *what) {
    return moec_fail(error, MOEC_BAD_WEIGHTS, "%s: %s", path, what);
}

static int check_header(const struct header *header, const moec_description *description, const char *path,
    moec_error **error) {
    if (memcmp(header->magic, MAGIC, sizeof MAGIC))
        return bad(error, path, "this is not a weight file made by moec (its first bytes say so)");
    if (header->version != VERSION)
        return moec_fail(error, MOEC_BAD_WEIGHTS, "%s: weight file of version %" PRIu32 ", but this library reads version %d",
            path, header->version, VERSION);
    if (header->header_checksum != moec_xxh64(header, offsetof(struct header, header_checksum)))
        return bad(error, path, "the weight file is corrupt: its header does not fit its checksum");
    if (header->header_bytes != sizeof *header || header->data_offset % DATA_ALIGNMENT ||
        header->data_offset < sizeof *header || header->table_bytes > header->data_offset - sizeof *header)
        return bad(error, path, "the weight file is corrupt: the offsets in its header make no sense");
    if (header->fingerprint != description->fingerprint || header->data_bytes != (uint64_t)description->weight_bytes)
        return moec_fail(error, MOEC_BAD_WEIGHTS,
            "%s: these weights were packed for another model or another build of it, not for this library (%s): the file "
            "has fingerprint %016" PRIx64 ", this library wants %016" PRIx64,
            path, description->name, header->fingerprint, description->fingerprint);
    return MOEC_OK;
}

static int check_size(const struct header *header, uint64_t bytes, const char *path, moec_error **error) {
    uint64_t whole;
    if (__builtin_add_overflow(header->data_offset, header->data_bytes, &whole))
        return bad(error, path, "the weight file is corrupt: the sizes in its header make no sense");
    if (bytes == whole) return MOEC_OK;
    return moec_fail(error, MOEC_BAD_WEIGHTS, "%s: the weight file is %s: it has %" PRIu64 " bytes and should have %" PRIu64,
        path, bytes < whole ? "truncated" : "corrupt", bytes, whole);
}

/* Reads `bytes` at `from`, which the file has. */
static int read_at(int file, void *into, size_t bytes, uint64_t from, const char *path, moec_error **error) {
    size_t done = 0;
    while (done < bytes) {
        ssize_t got = pread(file, (char *)into + done, bytes - done, (off_t)(from + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return moec_fail(error, MOEC_IO, "cannot read %s: %s", path, strerror(errno));
        if (got == 0) return bad(error, path, "the weight file is truncated: its header is not whole");
        done += (size_t)got;
    }
    return MOEC_OK;
}

/* All of the file, or if it is a program with weights inside, that part of it. */
static int find_weights(int file, uint64_t whole, struct extent *weights, const char *path, moec_error **error) {
    struct program_end end;
    *weights = (struct extent){0, whole};
    if (whole < sizeof end) return MOEC_OK;
    uint64_t end_at = whole - sizeof end;
    int code = read_at(file, &end, sizeof end, end_at, path, error);
    if (code || memcmp(end.magic, PROGRAM_MAGIC, sizeof end.magic)) return code;
    if (end.version != 1 || end.table > end_at || (end_at - end.table) / sizeof(struct program_part) < end.parts)
        return bad(error, path, "the program is corrupt: the table of its parts makes no sense");
    for (uint32_t at = 0; at < end.parts; at++) {
        struct program_part part;
        code = read_at(file, &part, sizeof part, end.table + at * sizeof part, path, error);
        if (code) return code;
        if (memcmp(part.name, WEIGHTS_PART, sizeof part.name)) continue;
        if (part.offset % DATA_ALIGNMENT || part.offset > end.table || part.bytes > end.table - part.offset)
            return bad(error, path, "the program is corrupt: the table of its parts makes no sense");
        *weights = (struct extent){part.offset, part.bytes};
        return MOEC_OK;
    }
    return bad(error, path, "this program has no weights inside");
}

/* Whether all of it is in memory. Where the system does not say: yes. */
static bool is_cached(char *at, size_t bytes, size_t page) {
    unsigned char in_memory[16384];
    for (size_t from = 0; from < bytes; from += sizeof in_memory * page) {
        size_t some = bytes - from < sizeof in_memory * page ? bytes - from : sizeof in_memory * page;
        if (mincore(at + from, some, in_memory)) return false;
        for (size_t number = 0; number < (some + page - 1) / page; number++)
            if (!(in_memory[number] & 1)) return false;
    }
    return true;
}

/* Maps the weights that are in memory, or else each first touch is a page fault: a first token took twice as long as later
 * ones. What is not in memory comes when it is touched, for models may be larger than memory; and so does what is beyond
 * the time for it. */
static void map_cached(const moec_weights *weights) {
#ifdef MADV_POPULATE_READ
    int64_t start = moec_now_ns();
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t from = 0; from < weights->map_bytes && moec_now_ns() - start < MAPPING_NS; from += MAPPED_AT_ONCE) {
        size_t left = weights->map_bytes - from, bytes = left < MAPPED_AT_ONCE ? left : MAPPED_AT_ONCE;
        char *at = (char *)weights->map + from;
        if (is_cached(at, bytes, page) && madvise(at, bytes, MADV_POPULATE_READ)) return;
    }
#else
    (void)weights;
#endif
}

static int map_file(moec_weights *weights, const moec_description *description, int file, const char *path, int32_t verify,
    moec_error **error) {
    struct stat status;
    struct header header;
    if (fstat(file, &status)) return moec_fail(error, MOEC_IO, "cannot read %s: %s", path, strerror(errno));
    if (!S_ISREG(status.st_mode)) return moec_fail(error, MOEC_IO, "cannot read %s: it is not a file", path);
    if (status.st_size == 0) return bad(error, path, "the weight file is empty");
    struct extent part;
    int code = find_weights(file, (uint64_t)status.st_size, &part, path, error);
    if (!code && part.bytes < sizeof header) code = bad(error, path, "the weight file is truncated: its header is not whole");
    if (!code) code = read_at(file, &header, sizeof header, part.from, path, error);
    if (!code) code = check_header(&header, description, path, error);
    if (!code) code = check_size(&header, part.bytes, path, error);
    if (code) return code;
    size_t bytes = (size_t)part.bytes;
    void *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, file, (off_t)part.from);
    if (map == MAP_FAILED) {
        int kind = errno == ENOMEM ? MOEC_OUT_OF_MEMORY : MOEC_IO;
        return moec_fail(error, kind, "cannot map %s: %s", path, strerror(errno));
    }
    *weights = (moec_weights){.map = map, .map_bytes = bytes, .data = (const char *)map + header.data_offset};
    /* What is not in memory yet comes in huge pages, where the file system can: weights are read a good fifth faster from
     * those. (MADV_WILLNEED would begin to read now, but into small ones.) */
    if (madvise(map, bytes, MADV_HUGEPAGE)) madvise(map, bytes, MADV_WILLNEED);
    bool check = verify == 1 || (verify == 0 && header.data_bytes <= CHECKED_BY_DEFAULT);
    if (!check) {
        map_cached(weights);
        return MOEC_OK;
    }
    if (moec_xxh64(weights->data, header.data_bytes) == header.data_checksum) return MOEC_OK;
    moec_weights_close(weights);
    return bad(error, path, "the weight file is corrupt: its data does not fit its checksum");
}

int moec_weights_open(moec_weights *weights, const moec_description *description, const char *path, int32_t verify,
    moec_error **error) {
    /* Not to wait for a writer, should this be a pipe. */
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) return moec_fail(error, MOEC_IO, "cannot open %s: %s", path, strerror(errno));
    int code = map_file(weights, description, file, path, verify, error);
    close(file);
    return code;
}

void moec_weights_close(moec_weights *weights) {
    munmap(weights->map, weights->map_bytes);
    *weights = (moec_weights){NULL, 0, NULL};
}
